"""Experiments of Sixt, Granz, Landgraf: "When Explanations Lie: Why Many Modified BP Attributions Fail" (ICML 2020).

    python -m examples.when_explanations_lie.chain          # appendix B: products of random matrices
    python -m examples.when_explanations_lie.convergence    # figure 5: CSC on the 6-layer net with random weights
    python -m examples.when_explanations_lie.sanity         # figure 4: random logit, and random weights
    python -m examples.when_explanations_lie.heatmaps       # figures 1a and 6a: maps under random weights

What the paper says, what was measured and why they differ is on the page about evaluation.
"""
