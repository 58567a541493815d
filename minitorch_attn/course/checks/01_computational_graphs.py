import numpy as np

from minitorch_attn.course.exercise import Case, Code, Exercise, rules

# -- divide ---------------------------------------------------------------------------------


def divide_reference(a, b):
    def vjp_a(dy):
        return dy / b

    def vjp_b(dy):
        return -dy * a / b**2

    return a / b, (vjp_a, vjp_b)


def two_arrays(rng):
    shape = rng.integers(1, 5, size=rng.integers(1, 4))
    denominator = rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)
    return Case("any shape", rng.normal(size=shape), denominator)


divide = Exercise(
    "01.divide",
    reference=divide_reference,
    observe=rules,
    cases=[
        Case("single numbers", np.array([6.0]), np.array([2.0])),
        Case("a negative denominator", np.array([1.0, 8.0, -3.0]), np.array([-2.0, 4.0, 0.5])),
        Case("two rows", np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 0.5], [-4.0, 10.0]])),
        Case("a denominator of 1", np.array([3.0]), np.array([1.0])),
    ],
    more=two_arrays,
    hints=[
        "Write y as a times 1/b. What is its derivative by a, while b stands still?",
        "By b: the derivative of 1/b is -1/b². Do not forget the factor a.",
        "The rules are `dy / b` and `-dy * a / b**2`; the second is also `-dy * y / b`.",
        "Return them in the order of the inputs: `return y, (vjp_a, vjp_b)`.",
    ],
)


@divide.mutant("The sign of the rule of b is wrong: a larger denominator makes y smaller.")
def sign_of_b(a, b):
    return a / b, (lambda dy: dy / b, lambda dy: dy * a / b**2)


@divide.mutant("The derivative of 1/b is -1/b², with a square; you divided by b once.")
def square_forgotten(a, b):
    return a / b, (lambda dy: dy / b, lambda dy: -dy * a / b)


@divide.mutant("The rule of b lacks the factor a: y is a times 1/b.")
def numerator_forgotten(a, b):
    return a / b, (lambda dy: dy / b, lambda dy: -dy / b**2)


@divide.mutant("The two rules are in the wrong order: `(vjp_a, vjp_b)`, as the inputs are.")
def rules_swapped(a, b):
    return a / b, (lambda dy: -dy * a / b**2, lambda dy: dy / b)


@divide.mutant(
    "Your rule of a multiplies with b; y is a times 1/b, so its derivative by a is 1/b: `dy / b`."
)
def rule_of_a_from_a_product(a, b):
    return a / b, (lambda dy: dy * b, lambda dy: -dy * a / b**2)


@divide.mutant(
    "Your rule of b is that of a product, `dy * a`; y is a times 1/b, and the derivative of 1/b is "
    "-1/b²."
)
def rule_of_b_from_a_product(a, b):
    return a / b, (lambda dy: dy / b, lambda dy: dy * a)


@divide.mutant("Your rules are those of a product, `dy * b` and `dy * a`.")
def rules_of_a_product(a, b):
    return a / b, (lambda dy: dy * b, lambda dy: dy * a)


@divide.mutant("Your rules give the local derivatives alone; each must be multiplied with dy.")
def slopes_without_dy(a, b):
    return a / b, (lambda dy: 1 / b, lambda dy: -a / b**2)


# -- log_add_exp ----------------------------------------------------------------------------


def log_add_exp_reference(a, b):
    y = np.logaddexp(a, b)

    def vjp_a(dy):
        return dy * np.exp(a - y)

    def vjp_b(dy):
        return dy * np.exp(b - y)

    return y, (vjp_a, vjp_b)


log_add_exp = Exercise(
    "01.log_add_exp",
    reference=log_add_exp_reference,
    observe=rules,
    cases=[
        Case("one pair", np.array([0.0]), np.array([1.0])),
        Case("equal numbers", np.array([0.0]), np.array([0.0])),
        Case("three pairs", np.array([1.0, -2.0, 3.0]), np.array([0.5, 2.0, -1.0])),
        Case("large numbers", np.array([1000.0, 999.0]), np.array([1000.0, 1001.0])),
        Case("pairs far apart", np.array([-1000.0, 0.0]), np.array([0.0, -1000.0])),
        Case("a pair of small numbers", np.array([-1000.0, 0.0]), np.array([-1001.0, 1.0])),
    ],
    more=lambda rng: Case("any shape", *3 * rng.normal(size=(2, *rng.integers(1, 5, size=2)))),
    hints=[
        "`m = np.maximum(a, b)` compares element by element; y is m plus a logarithm.",
        "The derivative of log(u) is 1/u, and of e^a + e^b by a it is e^a. So ∂y/∂a is "
        "e^a / (e^a + e^b).",
        "The denominator e^a + e^b is e^y. A quotient of exponentials is the exponential of a "
        "difference.",
        "`dy * np.exp(a - y)`: the exponent is never above 0, for y is at least as large as a.",
    ],
)


def the_rules(a, b, y):
    return lambda dy: dy * np.exp(a - y), lambda dy: dy * np.exp(b - y)


@log_add_exp.mutant(
    "exp overflows for large numbers, and for large negative ones it becomes 0, whose logarithm is "
    "-inf: take m = max(a, b) out of the sum first."
)
def exponentials_as_they_stand(a, b):
    y = np.log(np.exp(a) + np.exp(b))
    return y, the_rules(a, b, y)


@log_add_exp.mutant(
    "The output is right, but in the rules exp(a) / (exp(a) + exp(b)) overflows: use exp(a - y)."
)
def overflow_in_the_rules(a, b):
    total = np.exp(a) + np.exp(b)
    y = np.logaddexp(a, b)
    return y, (lambda dy: dy * np.exp(a) / total, lambda dy: dy * np.exp(b) / total)


@log_add_exp.mutant("You subtracted m inside the logarithm; it has to be added again outside.")
def largest_not_added_again(a, b):
    m = np.maximum(a, b)
    y = np.log(np.exp(a - m) + np.exp(b - m))
    return y, the_rules(a, b, y)


@log_add_exp.mutant(
    "You took out the one largest number of all, before which a pair of small numbers vanishes; "
    "`np.maximum(a, b)` takes the larger one of each pair."
)
def largest_of_all(a, b):
    m = max(np.max(a), np.max(b))
    y = m + np.log(np.exp(a - m) + np.exp(b - m))
    return y, the_rules(a, b, y)


@log_add_exp.mutant("You took a out of the sum; where b is much larger, exp(b - a) overflows.")
def only_a_taken_out(a, b):
    y = a + np.log(1 + np.exp(b - a))
    return y, the_rules(a, b, y)


@log_add_exp.mutant(
    "Your rules use exp(a - m) and exp(b - m), where exp(a - y) and exp(b - y) are right: the "
    "exponential of an input is divided by the whole sum, e^y, and not by its larger part, e^m."
)
def m_for_y_in_the_rules(a, b):
    m = np.maximum(a, b)
    y = m + np.log(np.exp(a - m) + np.exp(b - m))
    return y, (lambda dy: dy * np.exp(a - m), lambda dy: dy * np.exp(b - m))


@log_add_exp.mutant("Your rules give dy to the larger input alone; that is right for a maximum.")
def rules_of_a_maximum(a, b):
    return np.logaddexp(a, b), (lambda dy: dy * (a >= b), lambda dy: dy * (b > a))


@log_add_exp.mutant(
    "Your rules hand dy on to both inputs; that is right for a + b. Here the two share it: their "
    "local derivatives add up to 1."
)
def rules_of_a_sum(a, b):
    return np.logaddexp(a, b), (lambda dy: dy, lambda dy: dy)


# -- visiting_order -------------------------------------------------------------------------


def visiting_order_reference(inputs, root):
    found = {root}
    for node in sorted(inputs, reverse=True):
        if node in found:
            found.update(inputs[node])
    return sorted(found, reverse=True)


PROGRAM = {1: [], 2: [], 3: [1, 2], 4: [1, 3], 5: [3, 4]}


def any_graph(rng):
    """Nodes with up to three inputs among the earlier ones; some lead to the root, some do not."""
    size = int(rng.integers(4, 12))
    inputs = {
        node: [int(i) for i in rng.integers(1, node, size=rng.integers(0, 4))] if node > 1 else []
        for node in range(1, size + 1)
    }
    return Case("any graph", inputs, int(rng.integers(2, size + 1)))


visiting_order = Exercise(
    "01.visiting_order",
    reference=visiting_order_reference,
    cases=[
        Case("two leaves and a sum", {1: [], 2: [], 3: [1, 2]}, 3),
        Case("the program of the lesson", PROGRAM, 5),
        Case("from the middle of the program", PROGRAM, 4),
        Case("nodes that do not lead to the root", {1: [], 2: [], 3: [1], 4: [2], 5: [1, 3]}, 5),
        Case("numbers with gaps, listed out of order", {9: [7, 2], 2: [], 30: [9, 2], 7: [2]}, 30),
        Case("40 doublings", Code("{1: []} | {n: [n - 1, n - 1] for n in range(2, 42)}"), 41),
        Case("a long chain", Code("{1: []} | {n: [n - 1] for n in range(2, 5001)}"), 5000),
    ],
    more=any_graph,
    seconds=2.0,
    hints=[
        "Two questions, one after the other: which nodes lead to the root? And in which order?",
        "Keep a set of the nodes found and a list of those whose inputs are still to be looked at; "
        "both start with the root.",
        "Take a node off the list; those of its inputs that are not in the set yet go into the set "
        "and onto the list. Stop when the list is empty.",
        "An input's number is always the smaller one: `sorted(found, reverse=True)` is the order.",
    ],
)


@visiting_order.mutant("The order is the wrong way round: a reverse pass starts at the root.")
def smallest_first(inputs, root):
    return visiting_order_reference(inputs, root)[::-1]


@visiting_order.mutant("You listed all nodes; only those that lead to the root are to be visited.")
def all_nodes(inputs, root):
    return sorted(inputs, reverse=True)


@visiting_order.mutant("You listed all numbers up to the root's; some of them do not lead to it.")
def all_up_to_the_root(inputs, root):
    return sorted((node for node in inputs if node <= root), reverse=True)


@visiting_order.mutant("The root itself is missing: the pass begins there.")
def without_the_root(inputs, root):
    return visiting_order_reference(inputs, root)[1:]


@visiting_order.mutant(
    "You listed the inputs of the root, but not the inputs of those, and so on down to the leaves."
)
def direct_inputs_only(inputs, root):
    return sorted({root, *inputs[root]}, reverse=True)


@visiting_order.mutant(
    "You list a node in the order in which you first meet it, so it can come before a node that "
    "still has a gradient for it: sort by number."
)
def as_they_are_met(inputs, root):
    order, found = [root], {root}
    for node in order:
        for source in inputs[node]:
            if source not in found:
                found.add(source)
                order.append(source)
    return order


@visiting_order.mutant(
    "You go into a node's inputs before you come to the next one, and each node stands where you "
    "first met it. It must come after everyone who used its value: sort by number."
)
def depth_first(inputs, root):
    order, waiting = {}, [root]
    while waiting:
        node = waiting.pop()
        if node not in order:
            order[node] = True
            waiting += reversed(inputs[node])
    return list(order)


@visiting_order.mutant("A node that is reached along two paths is listed twice: keep a set.")
def once_for_each_path(inputs, root):
    order, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        order.append(node)
        waiting += inputs[node]
    return sorted(order, reverse=True)


@visiting_order.mutant(
    "Your function calls itself for each input, and the graph is deeper than Python lets functions "
    "call one another. Keep a list of the nodes still to be looked at, and loop.",
    raises=True,
)
def recursion(inputs, root):
    found = set()

    def visit(node):
        if node not in found:
            found.add(node)
            for source in inputs[node]:
                visit(source)

    visit(root)
    return sorted(found, reverse=True)


# -- accumulate -----------------------------------------------------------------------------


def accumulate_reference(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients[name] = gradients.get(name, 0.0) + dx
    return gradients


def any_arrivals(rng):
    shapes = {name: rng.integers(1, 4, size=rng.integers(1, 3)) for name in "abc"}
    names = rng.choice(list("abc"), size=rng.integers(3, 9))
    return Case("any arrivals", [(str(name), rng.normal(size=shapes[name])) for name in names])


accumulate = Exercise(
    "01.accumulate",
    reference=accumulate_reference,
    cases=[
        Case("one arrival", [("a", np.array([1.0, 2.0]))]),
        Case(
            "two meet at p",
            [("p", np.array([9.0])), ("a", np.array([6.0])), ("p", np.array([6.0]))],
        ),
        Case(
            "four arrays of two numbers, three of them for a",
            [
                ("a", np.array([1.0, -1.0])),
                ("b", np.array([0.5, 0.25])),
                ("a", np.array([10.0, 20.0])),
                ("a", np.array([100.0, 0.0])),
            ],
        ),
        Case("nothing arrives", []),
    ],
    more=any_arrivals,
    hints=[
        "Go through the arrivals once, with a dict of what has met so far.",
        "The first gradient under a name is the sum so far. What about the second?",
        "`gradients[name] + dx` makes a new array; `gradients[name] += dx` writes into the old "
        "one, which belongs to whoever sent it.",
        "`gradients[name] = gradients[name] + dx if name in gradients else dx`",
    ],
)


@accumulate.mutant("A later gradient overwrites an earlier one of the same name: add them.")
def overwritten(arrivals):
    return dict(arrivals)


@accumulate.mutant("Only the first gradient under each name is kept: add those that follow.")
def first_kept(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients.setdefault(name, dx)
    return gradients


@accumulate.mutant("You took the mean; paths add up, however many there are.")
def mean_for_sum(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients.setdefault(name, []).append(dx)
    return {name: np.mean(several, axis=0) for name, several in gradients.items()}


@accumulate.mutant("You gathered the gradients in lists; one array is wanted, their sum.")
def lists_of_gradients(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients.setdefault(name, []).append(dx)
    return gradients


@accumulate.mutant(
    "`+=` wrote into the first array that arrived, which is not yours: `gradients[name] + dx` "
    "makes a new one."
)
def written_into_the_first(arrivals):
    gradients = {}
    for name, dx in arrivals:
        if name in gradients:
            gradients[name] += dx
        else:
            gradients[name] = dx
    return gradients


@accumulate.mutant(
    "`gradients[name] += dx` asks for `gradients[name]`, and at the first arrival under a name "
    "nothing is there yet, a KeyError: put the first one there, and add those that follow (without "
    "`+=`, which would write into it).",
    raises=True,
)
def nothing_to_add_to(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients[name] += dx
    return gradients


@accumulate.mutant(
    "The first gradient under each name counts twice: `setdefault` puts it there, and the line "
    "after it adds it once more (and `+=` writes into the array that arrived)."
)
def first_counted_twice(arrivals):
    gradients = {}
    for name, dx in arrivals:
        gradients.setdefault(name, dx)
        gradients[name] += dx
    return gradients


# -- reverse_pass ---------------------------------------------------------------------------


def reverse_pass_reference(nodes, dy):
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        if number in gradients:
            for source, rule in nodes[number]:
                gradients[source] = gradients.get(source, 0.0) + rule(gradients[number])
    return gradients


THE_LESSONS = """[
    [],
    [],
    [(0, lambda dy: dy * 2), (1, lambda dy: dy * 3)],
    [(0, lambda dy: dy), (2, lambda dy: dy)],
    [(2, lambda dy: dy * 9), (3, lambda dy: dy * 6)],
]"""
NOT_ALL_LEAD_TO_THE_END = """[
    [],
    [(0, lambda dy: dy * 3)],
    [(0, lambda dy: dy * 100)],
    [(1, lambda dy: dy * 2)],
]"""
HANDED_ON = """[
    [],
    [(0, lambda dy: dy)],
    [(0, lambda dy: dy), (1, lambda dy: dy)],
    [(2, lambda dy: dy), (0, lambda dy: dy)],
]"""


def any_nodes(rng):
    size = int(rng.integers(3, 9))
    lines = ["    [],"]
    for number in range(1, size):
        sources = rng.integers(0, number, size=rng.integers(number == size - 1, 4))
        edges = [f"({source}, lambda dy: dy * {rng.integers(-3, 4)})" for source in sources]
        lines.append(f"    [{', '.join(edges)}],")
    text = "\n".join(["[", *lines, "]"])
    return Case("any graph", Code(text), rng.normal(size=rng.integers(1, 4)))


reverse_pass = Exercise(
    "01.reverse_pass",
    reference=reverse_pass_reference,
    cases=[
        Case("one operation", Code("[[], [(0, lambda dy: dy * 2)]]"), 1.0),
        Case(
            "one input used twice",
            Code("[[], [(0, lambda dy: dy * 2), (0, lambda dy: dy * 5)]]"),
            1.0,
        ),
        Case("the program of the lesson", Code(THE_LESSONS), 1.0),
        Case("a node that does not lead to the result", Code(NOT_ALL_LEAD_TO_THE_END), 1.0),
        Case("arrays that additions hand on", Code(HANDED_ON), np.array([1.0, 10.0])),
        Case(
            "a matrix on the way",
            Code("[[], [(0, lambda dy: dy @ np.array([[1.0, 2.0], [3.0, 4.0]]))]]"),
            np.array([1.0, -1.0]),
        ),
        Case(
            "40 doublings",
            Code("[[], *[[(i, lambda dy: dy), (i, lambda dy: dy)] for i in range(40)]]"),
            1.0,
        ),
        Case("a long chain", Code("[[], *[[(i, lambda dy: dy)] for i in range(5000)]]"), 1.0),
    ],
    more=any_nodes,
    seconds=2.0,
    hints=[
        "Keep a dict of the gradients that have arrived so far. It starts with one entry: the last "
        "node has dy.",
        "The numbers of the list are the order: go from the last to the first. When you come to a "
        "node, its gradient is complete.",
        "At a node, call each rule with the node's gradient. What the rule returns belongs to the "
        "source: put it there, or add it to what is there, without `+=`.",
        "A node without a gradient in the dict does not lead to the result: pass it over.",
    ],
)


@reverse_pass.mutant(
    "Where paths meet you overwrite the gradient that was there: add the new one to it."
)
def overwritten_where_paths_meet(nodes, dy):
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        if number in gradients:
            for source, rule in nodes[number]:
                gradients[source] = rule(gradients[number])
    return gradients


@reverse_pass.mutant(
    "You visit a node as soon as you first meet it, before all its gradients have arrived; the "
    "late ones are not carried on. Go by the numbers, from the last to the first."
)
def visited_when_first_met(nodes, dy):
    gradients, order = {len(nodes) - 1: dy}, [len(nodes) - 1]
    for number in order:
        for source, rule in nodes[number]:
            if source not in gradients:
                order.append(source)
            gradients[source] = gradients.get(source, 0.0) + rule(gradients[number])
    return gradients


@reverse_pass.mutant(
    "`+=` changed an array that others hold as well: a rule may return the very array it was "
    "given. `gradients[source] + dx` makes a new one."
)
def added_in_place(nodes, dy):
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        if number in gradients:
            for source, rule in nodes[number]:
                dx = rule(gradients[number])
                if source in gradients:
                    gradients[source] += dx
                else:
                    gradients[source] = dx
    return gradients


@reverse_pass.mutant("Every rule is given dy of the result; it needs the gradient of its own node.")
def dy_of_the_result_everywhere(nodes, dy):
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        if number in gradients:
            for source, rule in nodes[number]:
                gradients[source] = gradients.get(source, 0.0) + rule(dy)
    return gradients


@reverse_pass.mutant(
    "Nodes that do not lead to the result have no gradient at all, not even 0: leave them out."
)
def zeros_for_the_unreached(nodes, dy):
    gradients = dict.fromkeys(range(len(nodes)), 0.0 * dy)
    gradients[len(nodes) - 1] = dy
    for number in reversed(range(len(nodes))):
        for source, rule in nodes[number]:
            gradients[source] = gradients[source] + rule(gradients[number])
    return gradients


@reverse_pass.mutant(
    "A node that does not lead to the result has no gradient in your dict, and asking for it is a "
    "KeyError: pass such a node over, `if number in gradients`.",
    raises=True,
)
def unreached_nodes_not_passed_over(nodes, dy):
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        for source, rule in nodes[number]:
            gradients[source] = gradients.get(source, 0.0) + rule(gradients[number])
    return gradients


@reverse_pass.mutant(
    "You return the gradients of the leaves alone; those of the operations, and dy for the last "
    "node, belong there too."
)
def leaves_only(nodes, dy):
    gradients = reverse_pass_reference(nodes, dy)
    return {number: gradient for number, gradient in gradients.items() if not nodes[number]}


@reverse_pass.mutant(
    "You walk every path on its own, and their number doubles at each node where two paths begin. "
    "Visit each node once, when its gradient is complete.",
    raises=True,
)
def every_path_on_its_own(nodes, dy):
    gradients, waiting = {}, [(len(nodes) - 1, dy)]
    while waiting:
        number, dx = waiting.pop()
        gradients[number] = gradients.get(number, 0.0) + dx
        waiting += [(source, rule(dx)) for source, rule in nodes[number]]
    return gradients


@reverse_pass.mutant(
    "Your function calls itself along the edges, and the graph is deeper than Python lets "
    "functions call one another. Loop over the numbers, from the last to the first.",
    raises=True,
)
def recursion_for_the_order(nodes, dy):
    order = {}

    def visit(number):
        if number not in order:
            for source, _ in nodes[number]:
                visit(source)
            order[number] = True

    visit(len(nodes) - 1)
    gradients = {len(nodes) - 1: dy}
    for number in reversed(order):
        for source, rule in nodes[number]:
            gradients[source] = gradients.get(source, 0.0) + rule(gradients[number])
    return gradients
