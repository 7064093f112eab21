"""ALPS: masks by ADMM, then the remaining weights re-solved (Meng et al. 2024, arXiv 2406.07831), for masks.

Unlike the authors' code, conjugate gradients run until every row is solved, and (A + ρI)⁻¹ comes from a Cholesky
factorisation (obsdiff/solver/admm.py).
"""

from obsdiff.methods import Traits

TRAITS = Traits(statistic="hessian", solver="admm", group="layer")
