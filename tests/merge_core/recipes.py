"""One recipe for each method, with gradients and filters, on the models of a tiny family."""

LINEAR = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.2}}
  - {model: one, parameters: {weight: [0.1, 0.9, 0.4]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: 0.7}, {value: [1.0, 0.5]}]}}
"""

SLERP = """
merge_method: slerp
base_model: base
models:
  - model: one
parameters:
  t:
    - {filter: mlp, value: [0.0, 0.5, 0.3, 1.0]}
    - {filter: layernorm, value: 0.2}
    - value: 0.55
"""

TASK_ARITHMETIC = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: one, parameters: {weight: [0.3, 0.8]}}
  - {model: two, parameters: {weight: [{filter: mlp, value: -0.4}, {value: 0.6}]}}
  - {model: three, parameters: {weight: 0.25}}
parameters: {lambda: 0.9}
"""

TIES = """
merge_method: ties
base_model: base
models:
  - model: base
  - {model: one, parameters: {density: [0.3, 0.9], weight: 0.5}}
  - {model: two, parameters: {density: 0.5, weight: [{filter: mlp, value: [0.2, 1]}, {value: 0.3}]}}
  - {model: three, parameters: {density: 0.75, weight: 0.4}}
parameters: {normalize: true, lambda: 1.1}
"""

DARE_LINEAR = """
merge_method: dare_linear
base_model: base
models:
  - {model: one, parameters: {density: 0.5, weight: [0.3, 0.8]}}
  - {model: two, parameters: {density: [0.2, 1.0], weight: 0.6}}
seed: 11
"""

DARE_TIES = """
merge_method: dare_ties
base_model: base
models:
  - {model: one, parameters: {density: 0.5, weight: [0.3, 0.8]}}
  - {model: two, parameters: {density: [{filter: mlp, value: 0.2}, {value: 0.6}], weight: 0.6}}
  - {model: three, parameters: {density: 0.9, weight: 0.4}}
parameters: {rescale: inverse_density}
seed: 12
"""

RECIPES = {
    "linear": LINEAR,
    "slerp": SLERP,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
}
