"""Mutants that compute the same as the module: (module, lines before, lines after) and why."""

_LENGTHS = "a length is never 0"
_WORK = "only saves work"
_STRICT = "both have one length; `strict` guards against mistakes in the library"
_BOOLS = "for booleans this is `and` or `or`"
_SMALL = "CPython has one object for each small integer"
_ONE = "the call has one output"
_MODULO = "axes count modulo the rank, which is 1"

EQUIVALENT = {
    (f"keras_gss/{module}", before, after): why
    for module, before, after, why in [
        (
            "slimming.py",
            "if not difference <= noise * scale:",
            "if not difference is noise * scale:",
            _WORK,
        ),
        (
            "slimming.py",
            "for source, x in zip(_keras.sources(model), tree.flatten(inputs), strict=True)",
            "for source, x in zip(_keras.sources(model), tree.flatten(inputs), strict=False)",
            _STRICT,
        ),
        (
            "graph/trace.py",
            "known = (None if old is None else new for old, new in zip(declared, sizes, strict=True))",
            "known = (None if old is None else new for old, new in zip(declared, sizes, strict=False))",
            _STRICT,
        ),
        (
            "graph/rules/attention.py",
            "np.repeat(own_head, len(widths.keys), 0) & counts.reshape(-1, 1),",
            "np.repeat(own_head, len(widths.keys), 0) & counts.reshape(~1, 1),",
            "NumPy takes any negative length for the one to work out",
        ),
        (
            "graph/rules/movers.py",
            "if ((array == first) | ((array != array) & (first != first))).all():",
            "if ((array == first) + ((array != array) & (first != first))).all():",
            _BOOLS,
        ),
        (
            "graph/rules/merges.py",
            "channels = any(part.labels.shape[axis] > 1 for part in parts)",
            "channels = any(part.labels.shape[axis] != 1 for part in parts)",
            _LENGTHS,
        ),
        (
            "graph/rules/companions.py",
            "if x.labels.shape[axis] == 1 and emitted.shape[axis] > 1:",
            "if x.labels.shape[axis] == 1 and emitted.shape[axis] != 1:",
            _LENGTHS,
        ),
        (
            "graph/call.py",
            "if labels.shape[axis] > 1:",
            "if labels.shape[axis] != 1:",
            _LENGTHS,
        ),
        (
            "graph/call.py",
            "others = tuple(a for a in range(len(signal.shape)) if a != axis)",
            "others = tuple(a for a in range(len(signal.shape)) if a is not axis)",
            _SMALL,
        ),
        (
            "graph/rules/spatial.py",
            "return [width if k == axis + 1 else list(each) for k, each in enumerate(widths)]",
            "return [width if k is axis + 1 else list(each) for k, each in enumerate(widths)]",
            _SMALL,
        ),
        (
            "graph/rules/linear.py",
            "wide = [k - len(bias) for k, size in enumerate(bias) if size > 1 and k - len(bias) != axis]",
            "wide = [k - len(bias) for k, size in enumerate(bias) if size > 1 and k - len(bias) is not axis]",
            "CPython has one object for each integer from -5 on, and tensors have fewer axes",
        ),
        (
            "graph/rules/elementwise.py",
            "if not call.numeric or not known.any():",
            "if not call.numeric and not known.any():",
            _WORK,
        ),
        (
            "graph/rules/elementwise.py",
            "image = function(keras.ops.convert_to_tensor(np.where(known, value, 0.0)))",
            "image = function(keras.ops.convert_to_tensor(np.where(known, value, 1.0)))",
            "what stands where nothing is known is put aside again",
        ),
        (
            "graph/units.py",
            "self._parent = np.zeros(1024, dtype=np.int64) # doubled when full: linear in all units",
            "self._parent = np.zeros( 1023, dtype=np.int64) # doubled when full: linear in all units",
            _WORK,
        ),
        (
            "graph/records.py",
            "@dataclass(frozen=True, eq=False)",
            "@dataclass(frozen=False, eq=False)",
            "nothing in the library assigns to it; `frozen` guards against mistakes",
        ),
        (
            "graph/rules/merges.py",
            "for signal in parts[1:]:",
            "for signal in parts[ 0:]:",
            "the first part is tied to itself, and has its own constants",
        ),
        (
            "graph/rules/applications.py",
            'call.declare("gamma", 0, labels)',
            'call.declare("gamma", 1, labels)',
            _MODULO,
        ),
        (
            "graph/rules/linear.py",
            'call.declare("bias", 0, outputs)',
            'call.declare("bias", 1, outputs)',
            _MODULO,
        ),
        (
            "graph/rules/recurrent.py",
            "count = (len(call.shapes) - (1 if layer.merge_mode else 2)) // 2",
            "count = (len(call.shapes) - (1 if layer.merge_mode else 1)) // 2",
            "without a merge the number of outputs is even, and the half is rounded down",
        ),
        (
            "graph/rules/linear.py",
            'call.declare("kernel", -2, members[0], "outgoing")',
            'call.declare("kernel", -2, members[ 1], "outgoing")',
            "the channels of all groups are tied",
        ),
        (
            "graph/rules/spatial.py",
            'fill = [*call.args[1:], call.kwargs.get("constant_values")][0]',
            'fill = [*call.args[ 2:], call.kwargs.get("constant_values")][0]',
            "`ops.pad` of this Keras gives the constant by name",
        ),
        (
            "graph/rules/merges.py",
            "rank = len(call.shapes[0])",
            "rank = len(call.shapes[ -1])",
            _ONE,
        ),
        (
            "graph/liveness.py",
            "return self.kept[labels] & ~self.needed[labels]",
            "return self.kept[labels] * ~self.needed[labels]",
            _BOOLS,
        ),
    ]
}
