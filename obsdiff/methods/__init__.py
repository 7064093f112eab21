"""Pruning methods. An entry states what it is in literal constants, and scores weights.

STATISTIC    'hessian', 'squared_norm' or None: what calibration sums up over a layer's input
WEIGHTED     whether the timestep weighting enters that statistic
COMPENSATES  whether the remaining weights are updated; the score is then the OBS saliency, inside the sweep
GROUP        'block', 'row' or 'layer': the weights compared with each other
PRUNES       False for the dense reference alone
score(weight, statistic, generator)
             (rows, columns) float32, the statistic or None, a seeded generator → scores of weight's shape,
             the lowest removed first; absent where COMPENSATES
"""
