"""Learning rules, one file per family.

For input x, weights w and pre-activation u = x * sign(w)|w|^(p-1) + b, every layer-local rule reads

    y  = signal(u, layer, labels)        who learns, and with which sign
    dw = sum_b y x - (sum_b y u) w       one row per neuron; b runs over samples and output pixels
    w <- w + rate dw / max|dw|           (``hebb.nn.hebb_layer`` computes these two lines)

so a rule is its ``signal``: u has shape (M, C), one row for each sample, pixel and group, with the competition over
dimension 1, and y has the shape of u (it may be u, and u is not written to). A rule may bring a decay of its own, other
effective weights, a projection of the weights after a step, and a state that ``advance`` moves on before the signal; a
rule with a state sees u as maps, (B, C, H, W) or (B, C). With the field ``response`` u may be a cosine or a projection,
and with ``surround`` a filter comes after it (``hebb.nn.response``).

A rule with a loss of its own (``LocalRule``) has y = -dloss/du and no decay; ``hebb.nn.local_loss`` computes it
and an optimiser makes the step. Its function is

    loss(views, layer, context) -> {term: number}   summed with the layer's fields of the same names as coefficients

``views`` holds one tensor for each view of the batch, in the order of the images: the block's output averaged over the
map (B, M), behind the layer's ``projector`` and, when the rule reads labels, behind a linear classifier. Where
the layer has ``pooling=0`` it is the map itself. ``context`` is a ``hebb.config.rule.LossContext``, with the input of
the block and its layer. A rule may bring a layer and a projector of its own.

A module here registers its records when it is imported and imports torch inside its functions only.
"""
