"""Recipes of the kinds that stand in public model cards, written anew: four models of one base.

Each with the key paths of what mergekit passes over in it.
"""

WILD = {
    "stock of weighted models, filters in them": (
        """
dtype: float32
out_dtype: bfloat16
merge_method: model_stock
base_model: base
models:
    - model: one
      parameters:
        weight:
          - filter: mlp
            value: [2, 1]
          - value: 1
    - {model: two, parameters: {weight: 0.5, density: 0.5}}
""",
        [f"models[{i}].parameters.{key}" for i, key in [(0, "weight"), (1, "density")]]
        + ["models[1].parameters.weight"],
    ),
    "stock over all layers, the base among its models": (
        """
slices:
  - sources:
      - {model: base, layer_range: [0, 4]}
      - {model: one, layer_range: [0, 4]}
      - {model: two, layer_range: [0, 4]}
merge_method: model_stock
base_model: base
parameters: {normalize: false, int8_mask: true, rescale: true}
dtype: bfloat16
""",
        [f"parameters.{key}" for key in ("int8_mask", "normalize", "rescale")],
    ),
    "the usual slerp, with what its template had left over": (
        """
slices:
  - sources:
      - model: one
        layer_range: [0, 4]
      - model: two
        layer_range: [0, 4]
merge_method: slerp
base_model: one
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
  embed_slerp: true
random_seed: 0
dtype: bfloat16
""",
        ["parameters.embed_slerp", "random_seed"],
    ),
    "slerp towards a base that is no model of the list": (
        "merge_method: slerp\nbase_model: base\nmodels:\n- model: one\nparameters: {t: 0.45}\n",
        [],
    ),
    "method and base inside of a slice": (
        """
slices:
  - sources:
      - {model: base, layer_range: [0, 4]}
      - {model: one, layer_range: [0, 4]}
    merge_method: slerp
    base_model: base
    parameters: {t: 0.5, filter: mlp}
merge_method: slerp
""",
        ["slices[0].merge_method", "slices[0].parameters.filter"],
    ),
    "parameters at the base": (
        """
models:
  - {model: base, parameters: {weight: 0.2, density: 1.0}}
  - {model: one, parameters: {weight: 0.2}}
  - {model: two, parameters: {weight: [0.22, 0.113, 0.113, 0.113]}}
merge_method: dare_ties
base_model: base
parameters:
  density: 0.3
  int8_mask: true
  dtype: bfloat16
""",
        ["models[0].parameters.density", "models[0].parameters.weight", "parameters.dtype"],
    ),
    "flags and densities as gradients, to 0": (
        """
models:
  - {model: one, parameters: {weight: 1.0, density: [1, 0.5, 0]}}
  - {model: two, parameters: {weight: 1.0, density: 0}}
merge_method: ties
base_model: base
parameters:
  int8_mask: 1.0
  normalize: [{filter: mlp, value: [true, false]}, {value: [1, 0.0]}]
""",
        [],
    ),
    "parameters at the top": (
        """
models:
  - {model: one, parameters: {weight: 0.5, normalize: false}}
  - {model: two, parameters: {weight: -0.5}}
merge_method: task_arithmetic
base_model: base
normalize: true
int8_mask: true
allow_negative_weights: true
""",
        ["allow_negative_weights", "int8_mask", "models[0].parameters.normalize", "normalize"],
    ),
    "all parameters that there are": (
        """
models:
  - {model: one, parameters: {weight: 1.0, density: 0.9}}
  - {model: two, parameters: {weight: 1.0, density: 0.9}}
merge_method: sce
base_model: base
parameters: {normalize: true, filter_wise: false, smooth: false, lambda: 1.0, select_topk: 0.1}
""",
        [f"models[{i}].parameters.{key}" for i in (0, 1) for key in ("density", "weight")]
        + [f"parameters.{key}" for key in ("filter_wise", "lambda", "normalize", "smooth")],
    ),
    "a module, its slices indented or not": (
        """
base_model: base
merge_method: della_linear
modules:
  default:
    slices:
    - sources:
      - layer_range: [0, 4]
        model: one
        parameters: {density: 0.5, epsilon: 0.4, weight: [0.9, 0.2, 0.2, 0.2, 0.95, 0.8]}
      - {layer_range: [0, 4], model: two, parameters: {density: 0.5, epsilon: 0.4, weight: 0.3}}
      - {layer_range: [0, 4], model: base}
parameters: {lambda: 1.0, normalize: 1.0}
""",
        [],
    ),
    "numbers that YAML reads as texts": (
        """
merge_method: karcher
models: [{model: one}, {model: two}]
parameters: {tol: 1e-5, max_iter: 1200}
""",
        [],
    ),
    "a revision beside the model": (
        """
slices:
  - sources:
    - model: one
      revision: dpo-v0
      layer_range: [0, 3]
  - sources:
    - {model: one, layer_range: [1, 4]}
merge_method: passthrough
""",
        ["slices[0].sources[0].revision"],
    ),
}
