"""How readers make a Model.

`parts` makes nodes and Models and gives their facts, `builder` has short calls for the nodes of a rule, and
`bodies` makes loops and branches. Readers use no private name of `ovjit.api`.
"""
