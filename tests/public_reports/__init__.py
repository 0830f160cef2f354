"""What users of attribution libraries reported: one file a kind, named after what went wrong.

 1. A constant of autograd has many spellings.               test_constants_of_autograd
 2. A sigmoid at the end turns the sign of the map.          test_heads
 3. Maps of one name replace each other.                     test_maps_that_replace_each_other
 4. Pixels in other units.                                   test_units_of_photographs
 5. A class that does not exist has a map of zeros.          test_classes_that_do_not_exist
 6. Options that win nothing.                                test_options_without_effect
 7. Parallel linear branches that cancel.                    test_branches_that_cancel
 8. A ledger that does not close.                            test_ledger
 9. Memory layouts.                                          test_memory_layout
10. References beside unexplained inputs, and other ones.    test_references
11. Two constants of one name cannot be exported.            test_names_of_constants
12. A constant on the left of a product.                     test_spellings
13. What lies below the layer that is read.                  test_below_the_layer
14. Operators by their other names.                          test_spellings
15. Half precision and NaN.                                  test_precision_and_nan
16. Errors that do not help.                                 test_sentences_that_help
17. The first hour: many photographs.                        test_many_photographs
18. Which rule for which network.                            test_which_rule
19. Pictures older than the code that draws them.            test_pictures_older_than_their_code
20. Set-up.                                                  test_set_up
21. Files that crash or exhaust their reader.                test_files_that_crash_their_reader; each reader has its
                                                             own table and fuzz test in tests/files, tests/calibration,
                                                             tests/frontend and tests/runtime
22. Full disks, closed pipes, signals.                       test_disks_pipes_and_signals
23. NaN, no operators, overflow, complex references.         test_models_at_the_edge
24. Arguments of the runtime, and copies of an explainer.    test_arguments_of_the_runtime
25. Other bytes with other numbers of threads.               test_other_bytes_each_time

Two more, found beside them: test_examples_that_are_one_tensor, test_samples_that_see_each_other.
"""
