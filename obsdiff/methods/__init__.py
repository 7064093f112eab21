"""Pruning methods. An entry states what it is in literal constants, and scores weights.

KINDS        the kinds of patterns it serves: 'mask', 'structured'
STATISTIC    'hessian', 'moments' or None: what calibration sums up over a layer's input
WEIGHTED     whether the timestep weighting enters that statistic
COMPENSATES  whether the remaining weights are updated; the score is then the OBS saliency, inside the solver
GROUP        'block', 'row' or 'layer': the weights compared with each other, where the spec says nothing else
PRUNES       False for the dense reference alone

Where it does not compensate:
score(weight, input, generator)
             mask: (rows, columns) float32, statistics.Input or None, a seeded generator → scores of weight's shape,
             the lowest removed first
refine(weight, keep, input, scores, multiple)
             optional: the mask improved, as many weights kept (of every `multiple` columns, where that is above 1)
score_columns(columns, producers, input, generator)
             structured: a site's columns (rows, channels) of the consumer, (channels, fan-in) all weights that make a
             channel, the Input of those channels → (channels,); a group's score is the sum of its channels'
"""
