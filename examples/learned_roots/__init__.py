"""Experiments of Zhang, Zhong, Jiang: "Effective Optimization of Root Selection" (ACM MM 2024).

    python -m examples.learned_roots.baselines    # perturbation, segmentation, attack, f(root), and the maps

Its baselines are those that are rules here. Why a root matters is drawn by examples/toy_roots.py. What the paper says,
what was measured and why they differ is on the page about learned roots.
"""
