"""A spiking network that learns by Latent Predictive Learning, and a pairing protocol for its synapses.

Halvagal & Zenke 2023 (Nat. Neurosci. 26:1906), figures 5 and 6, with the published erratum. Times are in seconds,
voltages in millivolts, conductances in units of the leak, rates in hertz.
"""
