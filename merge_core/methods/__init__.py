"""One file per merge method: a pure function on tensors and one declaration, ``METHOD``.

Notation, in all files here:

    k        number of models that go in         W_b   (*shape)   base weights, float32
    weight   factor on a model, no unit          W_i   (*shape)   weights of model i
    density  share of delta entries kept, [0, 1] d_i = W_i - W_b  task vector ("delta") of model i
    [p]      1 where p holds, else 0             v_i   d_i, or W_i where there is no base
    <a, b>, |a|: dot product and norm of whole tensors as vectors; f(x)_j: of each entry, where said

House rules: arithmetic in float32 whatever the stored type, one rounding when the result is
written; never in place on an argument; no device moves and no logging inside a method. Sums run in
the order of the recipe, multiply and add are separate operations, and reductions go through
``exact_sums``, so that the bits do not depend on thread counts. No file imports torch at import
time: the declarations are read where torch must not be loaded.
"""
