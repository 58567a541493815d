# %% [markdown]
# # Exercises 01: computational graphs
#
# Five exercises, from one rule to a whole reverse pass. They follow lesson
# [01](../notebooks/01_computational_graphs.ipynb). `hint("01.divide")` gives one hint at a time.

# %%
import numpy as np

from minitorch_attn.course import check

# %% [markdown]
# ## 1. A quotient
#
# A primitive returns its output and, for each input, the rule that carries a gradient back. Write
# the quotient of two arrays of the same shape, element by element:
#
# $$y = \frac{a}{b} \qquad da = dy\,\frac{\partial y}{\partial a} \qquad
# db = dy\,\frac{\partial y}{\partial b}$$
#
# The two local derivatives are yours to find: differentiate by one input while the other stands
# still.


# %% exercise="divide"
def divide(a, b):
    """The quotient a / b in primitive form: (*), (*) -> (*).

    Returns y and the rules (vjp_a, vjp_b), each dy -> the gradient of its input.

    >>> y, (vjp_a, vjp_b) = divide(np.array([6.0]), np.array([2.0]))
    >>> y, vjp_a(np.array([1.0])), vjp_b(np.array([1.0]))
    (array([3.]), array([0.5]), array([-1.5]))
    """
    ### BEGIN SOLUTION
    y = a / b

    def vjp_a(dy):
        return dy / b

    def vjp_b(dy):
        return -dy * y / b

    return y, (vjp_a, vjp_b)
    ### END SOLUTION


# %% check="divide" points=2
check("01.divide", divide)

# %% [markdown]
# ## 2. The logarithm of a sum of exponentials
#
# $$y = \log(e^a + e^b)$$
#
# appears wherever probabilities are added that are kept as logarithms. Two difficulties: $e^{1000}$
# is too large for a float, although $\log(e^{1000} + e^{1000}) = 1000 + \log 2$ is a harmless
# number; and the rules must not overflow either. For the output, take the larger of the two numbers
# out of the sum. With $m = \max(a, b)$,
#
# $$y = \log\!\big(e^m\,(e^{a-m} + e^{b-m})\big) = m + \log(e^{a-m} + e^{b-m}),$$
#
# where no exponent is above 0. For the rules, show first that $\partial y/\partial a = e^{a-y}$.


# %% exercise="log_add_exp"
def log_add_exp(a, b):
    """log(exp(a) + exp(b)) in primitive form, without overflow: (*), (*) -> (*).

    Returns y and the rules (vjp_a, vjp_b), each dy -> the gradient of its input.

    >>> y, (vjp_a, vjp_b) = log_add_exp(np.array([0.0]), np.array([0.0]))
    >>> y, vjp_a(np.array([1.0])), vjp_b(np.array([1.0]))
    (array([0.69314718]), array([0.5]), array([0.5]))
    """
    ### BEGIN SOLUTION
    m = np.maximum(a, b)
    y = m + np.log(np.exp(a - m) + np.exp(b - m))

    def vjp_a(dy):
        return dy * np.exp(a - y)

    def vjp_b(dy):
        return dy * np.exp(b - y)

    return y, (vjp_a, vjp_b)
    ### END SOLUTION


# %% check="log_add_exp" points=2
check("01.log_add_exp", log_add_exp)

# %% [markdown]
# ## 3. In which order
#
# Nodes are numbered as they are made, and here a node is its number. `inputs` says for each node
# which nodes it was computed from; a leaf has none. The program $p = ab$, $s = a + p$, $L = ps$ of
# the lesson is
#
#     inputs = {1: [], 2: [], 3: [1, 2], 4: [1, 3], 5: [3, 4]}
#
# List the nodes that a reverse pass from `root` visits, in its order: all that `root` was computed
# from and itself, each once, the one made last first. Graphs can be deep (thousands of nodes in a
# row), and the number of paths through them can be huge.


# %% exercise="visiting_order"
def visiting_order(inputs, root):
    """The nodes behind a root and itself, largest number first.

    inputs: dict, for each node the list of the nodes that it was computed from.
    root: the node to start at. Returns a list of nodes.

    >>> visiting_order({1: [], 2: [], 3: [1, 2], 4: [1, 3], 5: [3, 4]}, root=4)
    [4, 3, 2, 1]
    """
    ### BEGIN SOLUTION
    found, waiting = {root}, [root]
    while waiting:
        for source in inputs[waiting.pop()]:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return sorted(found, reverse=True)
    ### END SOLUTION


# %% check="visiting_order" points=2
check("01.visiting_order", visiting_order)

# %% [markdown]
# ## 4. Where paths meet
#
# During a reverse pass gradients arrive one after the other, each with the name of the value that
# it belongs to. Give for each name the gradient that has met there in the end: the sum of all that
# arrived under it.
#
# The arrays belong to others: a rule such as `add`'s hands the same array to two inputs. So none of
# the arrays that arrive may be changed.


# %% exercise="accumulate"
def accumulate(arrivals):
    """The sum of the gradients that arrived under each name.

    arrivals: list of pairs (name, array); arrays under one name have one shape.
    Returns a dict of name to array. The arrays in arrivals stay as they are.

    >>> accumulate([("p", np.array([9.0])), ("a", np.array([6.0])), ("p", np.array([6.0]))])
    {'p': array([15.]), 'a': array([6.])}
    """
    ### BEGIN SOLUTION
    gradients = {}
    for name, dx in arrivals:
        gradients[name] = gradients[name] + dx if name in gradients else dx
    return gradients
    ### END SOLUTION


# %% check="accumulate" points=2
check("01.accumulate", accumulate)

# %% [markdown]
# ## 5. The reverse pass
#
# Now the whole walk. `nodes` is a list in the order in which the nodes were made: `nodes[i]` holds
# the edges of node `i`, pairs `(source, rule)` of the number of an input and the rule that carries a
# gradient there. A leaf has no edges. The last node is the result, and `dy` its gradient. With
# $a = 3$, $b = 2$ the program of the lesson reads
#
#     nodes = [
#         [],                                                # 0: a
#         [],                                                # 1: b
#         [(0, lambda dy: dy * 2), (1, lambda dy: dy * 3)],  # 2: p = a b
#         [(0, lambda dy: dy), (2, lambda dy: dy)],          # 3: s = a + p
#         [(2, lambda dy: dy * 9), (3, lambda dy: dy * 6)],  # 4: L = p s
#     ]
#
# Return the gradient of every node that one reaches, as a dict by number. Not every node of the
# list need lead to the result: those that do not are left out. As before, `dy` and what the rules
# return belong to others.


# %% exercise="reverse_pass"
def reverse_pass(nodes, dy):
    """The gradient at each node that leads to the last one.

    nodes: list of lists of (source, rule) pairs, in the order in which the nodes were made.
    dy: gradient of the last node, a number or an array.
    Returns a dict of a node's number to its gradient.

    >>> reverse_pass([[], [(0, lambda dy: 2 * dy), (0, lambda dy: 5 * dy)]], 1.0)
    {1: 1.0, 0: 7.0}
    """
    ### BEGIN SOLUTION
    gradients = {len(nodes) - 1: dy}
    for number in reversed(range(len(nodes))):
        if number in gradients:
            for source, rule in nodes[number]:
                dx = rule(gradients[number])
                gradients[source] = gradients[source] + dx if source in gradients else dx
    return gradients
    ### END SOLUTION


# %% check="reverse_pass" points=4
check("01.reverse_pass", reverse_pass)

# %% [markdown]
# If that check passes, you have written the core of an autograd engine. Here it differentiates the
# program of the lesson: 36 for $a$ and 45 for $b$.


# %%
def nodes_of_the_lesson(a, b):
    p, s = a * b, a + a * b
    return [
        [],
        [],
        [(0, lambda dy: dy * b), (1, lambda dy: dy * a)],
        [(0, lambda dy: dy), (2, lambda dy: dy)],
        [(2, lambda dy: dy * s), (3, lambda dy: dy * p)],
    ]


gradients = reverse_pass(nodes_of_the_lesson(3.0, 2.0), 1.0)
print("dL/da =", gradients[0], " dL/db =", gradients[1])
