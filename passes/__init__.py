"""Graph rewrites, and the words they are written in. A leaf: it imports torch and itself.

Rewrites, one a file, graph in, graph out; their order is in `pipelines` and in `relcompile.method`:
    canonical form: remove_noops, decompose, merge_batch_norm, chain_concatenations, fold_constants
    relevance: assign_rules, unroll_samples, add_reference, add_contributions, propagate_relevance
    afterwards: simplify, share_subexpressions, remove_dead_code, lower_adjoints
Words that rules and rewrites share: `emitter` writes nodes, `operators` says what an operator is, `messages` what
    travels backwards, `reference` what differences are taken from, `learn_roots` and `losses` how a root is searched
    for, `ledgers` what is written down on the way.
Views of a graph: graph, nodes, layers, affine_layers, residual_blocks. Running: runner, stages, errors.
"""
