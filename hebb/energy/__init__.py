"""Settling networks, whose layers all learn together; one file per method.

Notation: r_0 = x is the image, layer l = 1..L has n_l neurons, W_l (n_l x n_{l-1}) leads from l-1 to l, y is the
one-hot label, beta the strength of the nudge, N the batch size. Tensors are (N, n_l), one row per image, so the mean
<a b^T> of outer products is the matrix product A^T B / N. Like blocks, layers are counted from 0 in the code.

A method is a subclass of ``network.EnergyNetwork`` (``settle`` and ``learn``) and an entry in ``hebb.energy.methods``.
"""
