"""Timestep weightings: `alphas(steps, low, high)` → (steps,) float64, first (noisiest) step first.

A scaling of all α changes no mask, so only their ratios matter. One step alone has the value of its first step. An
entry with the literal constant TABLE = True is given the spec's `alphas` as a fourth argument; RANGED = False says that
low and high do not matter.
"""
