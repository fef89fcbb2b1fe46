"""Settling networks and learn as a whole, one file per method.

Notation: r_0 = x is the image, layer l = 1..L has n_l neurons, W_l (n_l x n_{l-1}) leads from l-1 to l, y is the
one-hot label, beta the strength of the nudge, N the batch. Tensors are (N, n_l), one row per image, so a mean of outer
products <a b^T> is the matrix product A^T B / N. In code layers are counted from 0, as blocks are.

A method is a subclass of ``network.EnergyNetwork`` (``settle`` and ``learn``) and an entry in ``hebb.energy.methods``.
"""
