"""CSM: contrastive similarity matching (Qin, Mudur & Pehlevan, Neural Comput. 2021).

Shapes: N images, n_l neurons of layer l, from n_0 pixels to n_L classes; rates and z are (N, n_1 + ... + n_L).
"""

from __future__ import annotations

from torch import Tensor

from hebb.energy.ep import EP, Source
from hebb.energy.network import PhaseState


class CSM(EP):
    """Equilibrium propagation with symmetric lateral weights M_l in the hidden layers. They add to the energy

        sum_{l<L} s_l^T M_l s_l / 2,   which adds - M_l s_l to the input of a hidden layer

    W and b learn as in EP. With a = ``lr_lateral``, a_t = a times the schedule's factor, and the signed beta,

        M_l <- M_l + a_t/(2 beta) <s_l^n s_l^nT>;   then   M_l <- M_l - a/(2 |beta|) M_l

    As in the published code, this uses only the nudged state, and the schedule does not change the decay.
    """  # noqa: D415

    def sources(self, i: int) -> list[Source]:
        """Return the layers whose rates are input of layer i: a hidden layer is one of its own."""
        lateral = self.layers[i].lateral
        return super().sources(i) if lateral is None else [(i, lateral, -1), *super().sources(i)]

    def change(self, x: Tensor, low: PhaseState, nudged: PhaseState, span: float, factor: float) -> None:
        """Change weights, biases and lateral weights."""
        super().change(x, low, nudged, span, factor)
        for layer, s in zip(self.layers, self.split(nudged.rates), strict=True):
            rate = layer.spec.lr_lateral
            if layer.lateral is not None and rate:
                keep = 1 - rate / (2 * abs(span))
                layer.lateral.addmm_(s.T, s, beta=keep, alpha=keep * rate * factor / (2 * span * len(x)))

    def energy(self, x: Tensor, state: PhaseState, target: Tensor | None = None, beta: float = 0.0) -> Tensor:
        """Return Phi of every image, (N,)."""
        phi = super().energy(x, state, target, beta)
        for layer, s in zip(self.layers, self.split(state.rates), strict=True):
            if layer.lateral is not None:
                phi = phi + 0.5 * ((s @ layer.lateral) * s).sum(dim=1)
        return phi
