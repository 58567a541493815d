# %% [markdown]
# # 01 · Computational graphs
#
# A program that computes a number is a graph, and one walk backwards through that graph gives the derivative of the number with respect to everything the program was given.
#
# **You will be able to**
#
# - draw a program as a graph, and derive why a gradient is a sum over paths;
# - write a reverse pass that visits every operation once, however the paths split, meet and pile up;
# - say why a loss of a million weights is differentiated backwards, and what that costs in work and in memory.
#
# **You need** lesson [00](00_start_here.ipynb). **Time** about 50 minutes.

# %%
import functools
import itertools
import tracemalloc
import weakref

import numpy as np

import minitorch_attn as mt
from minitorch_attn import viz
from minitorch_attn.data import digits

mt.set_default_dtype("float64")

# %% [markdown]
# ## The idea in one picture
#
# Here is a real image, a handwritten nine of 8 × 8 pixels. We write its 64 pixels as a list of numbers $x$ and give each pixel a weight, $w_1 \dots w_{64}$. From them a short program computes a score $z = \sum_i w_i x_i$, which should be large for a nine, and from the score a number $L$, the *loss*, which is small when the score is right:
#
# $$L = \log(1 + e^{z}) - z$$
#
# ($L$ falls towards 0 as $z$ grows.) The library's `Tensor` is an array that remembers how it was computed, so the program can be drawn.

# %%
images, labels = digits()[:]
nine = images[labels == 9][0].reshape(64)  # (64,): ink from 0 to 1

w = mt.tensor(np.zeros(64), requires_grad=True)
z = (w * nine).sum()
L = (1 + z.exp()).log() - z

viz.draw_graph(L, names={"w": w, "z": z, "L": L}, gradients=True)

# %% [markdown]
# *Figure 1. The program as a graph. Boxes with square corners are operations; values flow downwards, along the arrows. (The image and the 1 are constants and do not appear.) The orange numbers were computed in the other direction, from the bottom up: each says how fast $L$ changes with the value on that arrow. For an array its norm stands there, the square root of the sum of squares. At $z$ two arrows leave, and what comes back along them is added up: 0.5 and −1 make −0.5.*
#
# At the top the walk arrives at the 64 weights with 64 numbers: how fast the loss changes with each of them. They are the *gradient*, and since there is one for each pixel, they can be looked at. (We say the gradient of $L$ *by* $w$, for short; in full it is the gradient of $L$ *with respect to* $w$.)

# %%
L.backward()
dw = w.grad.numpy()
assert np.allclose(dw, -0.5 * nine)

viz.show_feature_maps(
    np.stack([nine, dw]).reshape(2, 8, 8),
    titles=["the image $x$", "the gradient of $L$ by $w$"],
)

# %% [markdown]
# *Figure 2. The image, and the gradient of the loss by the 64 weights, in one scale of colours. It is the image times −0.5: where there is ink, a larger weight lowers the loss; where there is none, a weight has no influence.*
#
# One walk gave all 64 numbers. For a million weights it would still be one walk. The rest of this lesson derives why, and builds it.

# %% [markdown]
# ## The equations
#
# ### A program is a graph
#
# We take a program small enough to follow with a pencil. From two numbers $a$ and $b$ it computes a product $p$, a sum $s$, and a result $L$:
#
# $$p = a\,b \qquad s = a + p \qquad L = p\,s$$
#
# For $a = 3$ and $b = 2$: $p = 6$, $s = 9$, $L = 54$.

# %%
a = mt.tensor(3.0, requires_grad=True)
b = mt.tensor(2.0, requires_grad=True)
p = a * b
s = a + p
L = p * s
assert (p.item(), s.item(), L.item()) == (6, 9, 54)

viz.draw_graph(L, names={"a": a, "b": b, "p": p, "s": s, "L": L}, values=True)

# %% [markdown]
# *Figure 3. The same program as a graph: each operation is a node, and an edge leads from a value to every operation that uses it. $a$ and $b$, which nothing computes, are the leaves. $a$ is used twice and so is $p$.*
#
# Each edge has a **local derivative**: how fast the operation at its end changes with that one input while its other inputs stand still. We write it with the round $\partial$. For an edge from $u$ to $v$ it is $\partial v / \partial u$:
#
# | edge | $a \to p$ | $b \to p$ | $a \to s$ | $p \to s$ | $p \to L$ | $s \to L$ |
# |---|---|---|---|---|---|---|
# | local derivative | $\partial p/\partial a = b$ | $\partial p/\partial b = a$ | $\partial s/\partial a = 1$ | $\partial s/\partial p = 1$ | $\partial L/\partial p = s$ | $\partial L/\partial s = p$ |
# | value | 2 | 3 | 1 | 1 | 9 | 6 |
#
# What we want is something else, the **gradient** $dL/da$, with the straight $d$: how fast $L$ changes with $a$ when everything that is computed from $a$ follows.

# %% [markdown]
# ### Along one path: multiply
#
# Let $v$ be computed from $u$ alone, and $L$ from $v$ alone. Change $u$ by a small amount $\delta$.
#
# 1. By the definition of a derivative, $v$ changes by $\frac{\partial v}{\partial u}\,\delta$, up to an error that vanishes faster than $\delta$.
# 2. By the same definition, a change of $v$ by $\epsilon$ changes $L$ by $\frac{\partial L}{\partial v}\,\epsilon$, up to an error that vanishes faster than $\epsilon$.
# 3. Put $\epsilon = \frac{\partial v}{\partial u}\,\delta$ from line 1 into line 2: $L$ changes by $\frac{\partial L}{\partial v}\,\frac{\partial v}{\partial u}\,\delta$.
# 4. Divide by $\delta$ and let $\delta$ go to 0; both errors are gone:
#
# $$\frac{dL}{du} = \frac{\partial L}{\partial v}\,\frac{\partial v}{\partial u}$$
#
# That is the chain rule. A longer path works in the same way, one factor for each edge: **along a path, local derivatives are multiplied**.

# %% [markdown]
# ### Where paths meet: add
#
# An operation with two inputs follows both. If $p$ changes by $\epsilon_1$ and $s$ by $\epsilon_2$, both small, then $L$ changes by
#
# $$\frac{\partial L}{\partial p}\,\epsilon_1 + \frac{\partial L}{\partial s}\,\epsilon_2$$
#
# up to an error that vanishes faster than they do; that is what it means for a function of two inputs to have derivatives. Now change $a$ in our program by a small $\delta$, leave $b$ as it is, and follow the change from node to node:
#
# 1. $p = ab$ changes by $\frac{\partial p}{\partial a}\,\delta = b\,\delta$.
# 2. $s = a + p$ has two changing inputs: $\frac{\partial s}{\partial a}\,\delta + \frac{\partial s}{\partial p}\,(b\,\delta) = 1\cdot\delta + 1\cdot b\,\delta$. The second term uses line 1.
# 3. $L = ps$ has two changing inputs as well: $\frac{\partial L}{\partial p}\,(b\,\delta) + \frac{\partial L}{\partial s}\,(1\cdot\delta + 1\cdot b\,\delta) = s\,b\,\delta + p\,(1\cdot\delta + 1\cdot b\,\delta)$, with lines 1 and 2.
# 4. Multiply out and divide by $\delta$:
#
# $$\frac{dL}{da} = \underbrace{s \cdot b}_{a \to p \to L} + \underbrace{p \cdot 1 \cdot b}_{a \to p \to s \to L} + \underbrace{p \cdot 1}_{a \to s \to L} = 18 + 12 + 6 = 36$$
#
# Three products, and each is a path from $a$ to $L$ with its local derivatives. This holds in any graph, because lines 2 and 3 can be repeated at any node:
#
# $$\boxed{\;\frac{dL}{du} = \sum_{\text{paths from } u \text{ to } L}\;\; \prod_{\text{edges of the path}} \text{local derivative}\;}$$
#
# To be sure: $L = ab\,(a + ab) = a^2 b + a^2 b^2$, whose derivative by $a$ is $2ab + 2ab^2 = 12 + 24 = 36$.

# %% [markdown]
# ### Do not walk the paths one by one
#
# The sum is right but long: where paths split and meet again and again, their number doubles each time. Sharing the common parts makes it short. Sort the paths from $u$ by their **first** edge, $u \to v$. All paths that begin with that edge share its factor $\partial v / \partial u$, which the distributive law takes out of the sum; what is left in the brackets is the sum over all paths from $v$, which is $dL/dv$:
#
# $$\frac{dL}{du} = \sum_{v\,:\,u \to v} \frac{\partial v}{\partial u} \Big[\sum_{\text{paths from } v \text{ to } L} \;\prod_{\text{edges}} \text{local derivative} \Big] = \sum_{v\,:\,u \to v} \frac{dL}{dv}\,\frac{\partial v}{\partial u} \tag{reverse}$$
#
# It starts at the end, with $dL/dL = 1$, and each gradient is made of those nearer to the end:
#
# $$\begin{aligned}
# \frac{dL}{ds} &= \frac{dL}{dL}\cdot p = 6 \\
# \frac{dL}{dp} &= \frac{dL}{dL}\cdot s + \frac{dL}{ds}\cdot 1 = 9 + 6 = 15 \\
# \frac{dL}{da} &= \frac{dL}{dp}\cdot b + \frac{dL}{ds}\cdot 1 = 30 + 6 = 36 \\
# \frac{dL}{db} &= \frac{dL}{dp}\cdot a = 45
# \end{aligned}$$
#
# Six edges, six multiplications, and *both* gradients are there. (The sum runs over edges: an operation that uses $u$ twice, as in $u \cdot u$, has two of them from $u$, and both count.) Mind the order: $dL/dp$ may be used only once it is complete, with the share that comes by way of $s$.

# %% [markdown]
# ### Forward or reverse
#
# The paths can also be sorted by their **last** edge. That gives a walk in the other direction, which says how everything changes with one leaf, here $a$:
#
# $$\frac{dv}{da} = \sum_{u\,:\,u \to v} \frac{\partial v}{\partial u}\,\frac{du}{da} \tag{forward}$$
#
# It starts with $da/da = 1$ and $db/da = 0$: then $dp/da = 2$, $ds/da = 1 + 2 = 3$, $dL/da = 9 \cdot 2 + 6 \cdot 3 = 36$. The same number, but nothing about $b$: that takes a second walk.
#
# Both walks use each edge once. Let a program have $n$ inputs, $m$ results and $e$ edges:
#
# | | one walk gives | for all derivatives |
# |---|---|---|
# | forward mode | the derivatives of all results by **one** input | $n \cdot e$ multiplications |
# | reverse mode | the derivatives of **one** result by all inputs | $m \cdot e$ multiplications |
#
# Training has one result, the loss ($m = 1$), and as many inputs as there are weights ($n$ may be many millions). So networks are differentiated in reverse. The price is memory: the walk back needs local derivatives such as $s$ and $b$ when the program has long finished, so the values in them must be kept until then.

# %% [markdown]
# ### Arrays, and the one idea of this course
#
# Real programs work on arrays. Let an operation make an array $y$ of an array $x$. Each element $y_j$ may depend on each element $x_i$: that is an edge from $x_i$ to $y_j$, and equation (reverse) reads, with the gradients $dL/dy$ and $dL/dx$ written as $dy$ and $dx$ for short (in code `dy` and `dx`; two letters, one name),
#
# $$dx_i = \sum_j dy_j\,\frac{\partial y_j}{\partial x_i} \qquad dy \text{ has the shape of } y \text{, and } dx \text{ that of } x.$$
#
# The function that makes `dx` of `dy` is called the operation's *vector-Jacobian product*, for the table of all $\partial y_j / \partial x_i$ is its Jacobian. In code it is named `vjp_x`. It hardly ever needs that table, as these examples show. (A star, as in $(*)$, is any shape.)
#
# **multiply**, $y = a\,b$, each element on its own, $(*), (*) \to (*)$. Element $y_j = a_j b_j$ depends on $a_i$ only if $i = j$, and then $\partial y_i/\partial a_i = b_i$. One term of the sum is left: `da = dy * b`. By the same steps `db = dy * a`.
#
# **add**, $y = a + b$: $\partial y_i/\partial a_i = 1$, hence `da = dy` and `db = dy`.
#
# **exp**, $y = e^x$: $\partial y_i/\partial x_i = e^{x_i} = y_i$, hence `dx = dy * y`. The output serves again.
#
# **mean** of $N$ numbers, $y = \frac1N \sum_i x_i$, $(N) \to ()$: every $\partial y/\partial x_i$ is $1/N$, hence `dx` is `dy / N` at every place.
#
# **scores**, $z_n = \sum_d X_{nd}\,w_d$ for $N$ images of $D$ numbers each, $X$ of shape $(N, D)$ and fixed, $(D) \to (N)$. Here $\partial z_n/\partial w_d = X_{nd}$, hence $dw_d = \sum_n dz_n X_{nd}$, which is `X.T @ dz`.
#
# **softplus**, $y = \log(1 + e^x)$, each element on its own. The derivative of the logarithm times that of its argument: $\partial y_i/\partial x_i = \frac{1}{1 + e^{x_i}}\,e^{x_i} = \frac{1}{1 + e^{-x_i}}$, which is the logistic function, called $\sigma(x_i)$. Hence `dx = dy * σ(x)`.
#
# So an operation is known completely by two things: how to compute its output, and for each input the rule that carries a gradient back. A function of arrays that returns both is a **primitive**, `return y, rules`. Everything in this course, up to whole networks, is primitives put together; what puts them together is the rest of this lesson.

# %% [markdown]
# ## The code
#
# ### What is recorded
#
# While the program runs, we note for each operation where its inputs came from and which rule leads back to each. That note is a node. A node holds no values: an array and its node are two things, and the array may be forgotten while the node lives on. Nodes are numbered as they are made.

# %%
numbers = itertools.count(1)


class Node:
    """A point of the graph where gradients meet: an operation, or a leaf without edges."""

    def __init__(self, name, edges=()):
        self.name = name
        self.edges = edges  # pairs: the node of an input, and the rule that leads there
        self.number = next(numbers)


class Value:
    """An array, and the node where its gradients meet; without one it is a constant."""

    def __init__(self, array, node=None):
        self.array = np.asarray(array, dtype=float)
        self.node = node


def leaf(array):
    return Value(array, Node("leaf"))


# %% [markdown]
# One function makes an operation on such values out of a primitive on arrays: it takes the arrays out, runs the primitive, and ties the rules to the nodes of the inputs. An input without a node is a constant; no edge leads there and its rule is dropped. Keyword arguments are settings, which have no gradient.


# %%
def primitive(forward):
    """An operation on Values, of a function of arrays that returns its output and its rules."""

    @functools.wraps(forward)  # keeps the name, and the function itself as .__wrapped__
    def apply(*inputs, **settings):
        inputs = [x if isinstance(x, Value) else Value(x) for x in inputs]
        y, rules = forward(*(x.array for x in inputs), **settings)
        rules = rules if isinstance(rules, tuple) else (rules,)
        edges = [(x.node, rule) for x, rule in zip(inputs, rules) if x.node is not None]
        return Value(y, Node(forward.__name__, edges) if edges else None)

    return apply


# %% [markdown]
# And the first three primitives. Each reads like its equation above.


# %%
@primitive
def add(a, b):
    """a + b: (*), (*) -> (*)."""

    def vjp_a(dy):
        return dy

    def vjp_b(dy):
        return dy

    return a + b, (vjp_a, vjp_b)


@primitive
def multiply(a, b):
    """a * b: (*), (*) -> (*)."""

    def vjp_a(dy):
        return dy * b

    def vjp_b(dy):
        return dy * a

    return a * b, (vjp_a, vjp_b)


@primitive
def exp(x):
    """The exponential of each element: (*) -> (*)."""
    y = np.exp(x)

    def vjp_x(dy):
        return dy * y

    return y, vjp_x


# %% [markdown]
# Our program again, now on our own values. Its nodes know all we need: a number, and edges back to smaller numbers.


# %%
def program(a, b):
    p = multiply(a, b)
    s = add(a, p)
    return multiply(p, s)


a, b = leaf(3.0), leaf(2.0)
L = program(a, b)
print("L =", L.array)

# %% [markdown]
# ### First: every path on its own
#
# The boxed sum over all paths can be written down as it stands. Start at $L$ with the gradient 1; follow every edge back, carrying the gradient through the rule; add up what arrives at each node. Each visit is one path.


# %%
def over_all_paths(node, dy, gradients):
    """Carry dy along every path that leads back from a node. Returns the number of visits."""
    gradients[node] = gradients.get(node, 0) + dy
    return 1 + sum(over_all_paths(source, rule(dy), gradients) for source, rule in node.edges)


gradients = {}
visits = over_all_paths(L.node, 1.0, gradients)
print("dL/da =", gradients[a.node], " dL/db =", gradients[b.node], " visits:", visits)
assert (gradients[a.node], gradients[b.node]) == (36, 45)

# %% [markdown]
# Right: 36 and 45, as by hand. But it took 9 visits for 5 nodes. How bad can that get? In the chain below each link doubles a number by adding it to itself, so that two edges lead from every value to the next: the number of paths doubles with every link.


# %%
def doublings(x, links):
    for _ in range(links):
        x = add(x, x)
    return x


def paths_visited(links):
    return over_all_paths(doublings(leaf(1.0), links).node, 1.0, {})


print([paths_visited(links) for links in range(6)])
assert all(paths_visited(links) == 2 ** (links + 1) - 1 for links in range(6))

# %% [markdown]
# $1 + 2 + 4 + \dots + 2^k = 2^{k+1} - 1$ visits for $k$ links. At 60 links, more than $10^{18}$.

# %% [markdown]
# ### Then: every node once
#
# Equation (reverse) needs each node once, as long as its gradient is complete when it is used. The gradient of a node is complete when all operations that used its value have been visited. In which order does that hold?
#
# In the order of the numbers, **largest first**. An operation can only use values that are there already, so its number is larger than those of its inputs. Going from the largest number to the smallest, all who used a value come before the value itself. No sorting of the graph by its edges is needed: running the program has sorted it.
#
# So we first gather the nodes behind the result,


# %%
def visiting_order(root):
    """The nodes that a result was computed from, and its own; the one made last comes first."""
    found, waiting = {root}, [root]
    while waiting:
        for source, _ in waiting.pop().edges:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return sorted(found, key=lambda node: -node.number)


first = min(node.number for node in visiting_order(L.node))
print([(node.number - first, node.name) for node in visiting_order(L.node)])

# %% [markdown]
# (the numbers are counted from the first node here), and then walk:


# %%
def reverse_pass(root, dy):
    """The gradient of a result by every node behind it, as a dict."""
    gradients = {root: dy}
    for node in visiting_order(root):
        dy = gradients[node]  # complete: all that used this value have been visited
        for source, rule in node.edges:
            dx = rule(dy)
            gradients[source] = gradients[source] + dx if source in gradients else dx
    return gradients


gradients = reverse_pass(L.node, 1.0)
for node in visiting_order(L.node):
    print(f"{node.name:9} dL/d(it) = {gradients[node]:g}")
assert (gradients[a.node], gradients[b.node]) == (36, 45)

# %% [markdown]
# From top to bottom: $L$, $s$, $p$, $b$, $a$, with the five numbers that we found by hand. Two details matter.
#
# - Where paths meet, gradients are **added**. The line `gradients[source] + dx` is the plus sign of the derivation; without it one path overwrites the other, and later we shall see what that does to a training.
# - It says `gradients[source] + dx`, not `gradients[source] += dx`. On arrays, `+=` writes into the old array, and the rules of `add` hand *the same* array `dy` to both inputs: writing into one would change the other.
#
# There are loops and no recursion, for a reason. A function that calls itself for every edge goes as deep as the graph is long, and by default Python allows a depth of a few thousand at most. A recurrent network on a long text is deeper.

# %%
x = leaf(0.0)
y = x
for _ in range(10_000):
    y = add(y, 1.0)

try:
    over_all_paths(y.node, 1.0, {})
    outcome = "done"
except RecursionError:
    outcome = "RecursionError"
print("recursion, 10,000 operations deep:", outcome)
print("in the order of the numbers: dy/dx =", reverse_pass(y.node, 1.0)[x.node])
assert outcome == "RecursionError"

# %% [markdown]
# Now count both ways of walking on the chain of doublings, and draw it.

# %%
links = np.arange(17)
by_paths = [paths_visited(k) for k in links]
by_nodes = [len(visiting_order(doublings(leaf(1.0), k).node)) for k in links]
assert by_paths[-1] == 2**17 - 1 and by_nodes[-1] == 17

x = leaf(1.0)
y, by_all_paths = doublings(x, 16), {}
over_all_paths(y.node, 1.0, by_all_paths)
assert by_all_paths[x.node] == reverse_pass(y.node, 1.0)[x.node] == 2**16

with viz.use_style():
    figure, ax = viz.panels(width=6.0, height=3.2)
    ax.semilogy(links, by_paths, color=viz.COLOURS[1])
    ax.semilogy(links, by_nodes, color=viz.COLOURS[0])
    ax.annotate("every path", (16, by_paths[-1]), (6, 0), textcoords="offset points", va="center")
    ax.annotate("every node", (16, by_nodes[-1]), (6, 0), textcoords="offset points", va="center")
    ax.set(xlabel="links in the chain of doublings", ylabel="visits")
    ax.grid(axis="y")
figure

# %% [markdown]
# *Figure 4. Visits against the length of the chain, on a logarithmic scale. The sum over paths takes 131,071 visits for 16 links; in the order of the numbers there are 17. Both give the gradient $2^{16}$.*

# %% [markdown]
# ### Forward mode, counted
#
# For single numbers a rule multiplies `dy` by the local derivative, so the same rules also serve equation (forward). We count how often a rule is applied, for a program that adds up the squares of $n$ inputs.


# %%
def forward_pass(root, source_leaf):
    """How fast each node changes with one leaf, for programs on single numbers."""
    change, applied = {}, 0
    for node in reversed(visiting_order(root)):
        change[node] = 1.0 if node is source_leaf else 0.0
        for source, rule in node.edges:
            change[node] += rule(change[source])
            applied += 1
    return change, applied


def sum_of_squares(xs):
    total = multiply(xs[0], xs[0])
    for x in xs[1:]:
        total = add(total, multiply(x, x))
    return total


for n in (1, 10, 100):
    xs = [leaf(float(i)) for i in range(n)]
    L = sum_of_squares(xs)
    forward = [forward_pass(L.node, x.node) for x in xs]
    reverse = reverse_pass(L.node, 1.0)
    edges = sum(len(node.edges) for node in visiting_order(L.node))
    assert all(change[L.node] == reverse[x.node] for (change, _), x in zip(forward, xs))
    forward_rules = sum(applied for _, applied in forward)
    print(f"{n:3} inputs: forward {forward_rules:6,} rules applied, reverse {edges:3}")

# %% [markdown]
# The gradients agree, and each forward walk costs what the one reverse walk costs: $n$ times as much in all.

# %% [markdown]
# ### What is kept, and what is freed
#
# The graph holds nodes; nodes hold rules; a rule holds the variables of its primitive that it mentions (Python calls that a closure). Everything else is freed as soon as the program lets go of it. A *weak reference* looks at an array without keeping it alive, so it can tell.

# %%
x = leaf(np.ones(3))
u = add(x, x)  # add: its rules mention no array
v = exp(u)  # exp: its rule mentions the output
y = multiply(v, x)  # multiply: its rules mention both inputs

watched = {name: weakref.ref(value.array) for name, value in [("u", u), ("v", v), ("y", y)]}


def kept():
    return {name: "kept" if array() is not None else "freed" for name, array in watched.items()}


result = y.node
del u, v, y  # the program forgets them; the graph behind `result` is still there
print(kept())
assert kept() == {"u": "freed", "v": "kept", "y": "freed"}

# %% [markdown]
# Nobody needs $u$ on the way back, nor $y$; $v$ is needed by the rules of two operations. If values and nodes were one object, as in many small engines, all three would have stayed.
#
# And once a node has been visited, its rules are not needed either. The finished pass drops them as it goes, and the gradients of operations with them, so that those of the leaves are what is left:


# %%
def backward(root, dy=1.0):
    """The gradient of a result by every leaf behind it, as a dict; frees the graph."""
    gradients = {root: dy}
    for node in visiting_order(root):
        if not node.edges:
            continue  # a leaf: what has met here is its gradient
        dy = gradients.pop(node)
        for source, rule in node.edges:
            dx = rule(dy)
            gradients[source] = gradients[source] + dx if source in gradients else dx
        node.edges = None
    return gradients


backward(result, np.ones(3))
print(kept())
assert kept()["v"] == "freed"

# %% [markdown]
# That is a whole engine: `Node`, `Value`, `primitive`, `visiting_order`, `backward`. A second walk over a graph that was freed fails, and so it should; the program is run again first, as a training does for every step.

# %% [markdown]
# ### The same as the library's
#
# `mt.Tensor` and `mt.primitive` do the same, with more care for shapes, types and clear errors. Since a primitive is a function of arrays, ours go through the library's door unchanged.

# %%
a, b = leaf(3.0), leaf(2.0)
ours = backward(program(a, b).node)

ta, tb = mt.tensor(3.0, requires_grad=True), mt.tensor(2.0, requires_grad=True)
tp = ta * tb
(tp * (ta + tp)).backward()

print("by hand      36 45")
print("ours        ", ours[a.node], ours[b.node])
print("the library ", ta.grad.item(), tb.grad.item())
assert ours[a.node] == ta.grad.item() == 36 and ours[b.node] == tb.grad.item() == 45

# %%
add_tensors = mt.primitive(add.__wrapped__)
multiply_tensors = mt.primitive(multiply.__wrapped__)
exp_tensors = mt.primitive(exp.__wrapped__)

array = np.random.default_rng(0).normal(size=(4, 3))

x = leaf(array)
y = multiply(exp(add(x, x)), x)
ours = reverse_pass(y.node, np.ones((4, 3)))[x.node]

tx = mt.tensor(array, requires_grad=True)
ty = multiply_tensors(exp_tensors(add_tensors(tx, tx)), tx)
ty.backward(np.ones((4, 3)))

print("outputs equal:", np.allclose(y.array, ty.data))
print("gradients equal:", np.allclose(ours, tx.grad.data))
assert np.allclose(y.array, ty.data) and np.allclose(ours, tx.grad.data)

# %% [markdown]
# ## The gradient check
#
# A wrong rule raises no error; it gives a wrong number. So every rule is compared with a derivative that is measured, by running the program twice for each input. For a number $x$ and a small step $h$, Taylor's formula says
#
# $$f(x + h) = f(x) + h f'(x) + \tfrac{h^2}{2} f''(x) + \dots \qquad f(x - h) = f(x) - h f'(x) + \tfrac{h^2}{2} f''(x) - \dots$$
#
# Subtract the second from the first, and divide by $2h$: what is left is $f'(x)$ and an error of the order $h^2$. That is a *central difference*.


# %%
def measured(f, x, h=1e-6):
    """The derivatives of a number f(x) by each element of an array x, by central differences."""
    dx = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = h
        dx[i] = (f(x + step) - f(x - step)) / (2 * h)
    return dx


# %% [markdown]
# The remaining primitives are the ones that the experiment needs: `scores`, `softplus`, `subtract` and `mean`. Fixed arrays, such as the images, are settings.


# %%
def sigma(x):
    """The logistic function, 1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


@primitive
def scores(w, *, X):
    """X @ w, the score of each image: (D) -> (N), X (N, D)."""

    def vjp_w(dz):
        return X.T @ dz

    return X @ w, vjp_w


@primitive
def softplus(x):
    """log(1 + exp(x)) for each element: (*) -> (*)."""

    def vjp_x(dy):
        return dy * sigma(x)

    return np.logaddexp(0, x), vjp_x  # log(exp(0) + exp(x)), safe for large x


@primitive
def subtract(a, b):
    """a - b: (*), (*) -> (*)."""

    def vjp_a(dy):
        return dy

    def vjp_b(dy):
        return -dy

    return a - b, (vjp_a, vjp_b)


@primitive
def mean(x):
    """The mean of all elements: (N) -> ()."""
    N = x.size

    def vjp_x(dy):
        return np.full(N, dy / N)

    return x.mean(), vjp_x


# %% [markdown]
# A primitive with several outputs is checked through one number: take random weights `dy`, one for each output, and let $f(x) = \sum_j dy_j\,y_j(x)$. Its derivative by $x_i$ is $\sum_j dy_j\,\partial y_j/\partial x_i$, which is what the rule should return.

# %%
rng = np.random.default_rng(1)


def largest_error(operation, *arrays, **settings):
    """The largest difference between the rules of a primitive and what is measured."""
    forward = operation.__wrapped__
    y, rules = forward(*arrays, **settings)
    dy = rng.normal(size=np.shape(y))
    errors = []
    for i, rule in enumerate(rules if isinstance(rules, tuple) else (rules,)):

        def f(x, i=i):
            inputs = [*arrays[:i], x, *arrays[i + 1 :]]
            return np.sum(dy * forward(*inputs, **settings)[0])

        errors.append(np.abs(rule(dy) - measured(f, arrays[i])).max())
    return max(errors)


u, v = rng.normal(size=(2, 5))
errors = {
    "add": largest_error(add, u, v),
    "subtract": largest_error(subtract, u, v),
    "multiply": largest_error(multiply, u, v),
    "exp": largest_error(exp, u),
    "softplus": largest_error(softplus, u),
    "mean": largest_error(mean, u),
    "scores": largest_error(scores, u, X=rng.normal(size=(7, 5))),
}
for name, error in errors.items():
    print(f"{name:9} {'right' if error < 1e-7 else 'WRONG'}")
assert max(errors.values()) < 1e-7

# %% [markdown]
# Now a mistake that is quickly made: the derivative of softplus with a sign wrong in the exponent, $\sigma(-x)$ in place of $\sigma(x)$.


# %%
@primitive
def wrong_softplus(x):
    """Softplus with a wrong rule."""

    def vjp_x(dy):
        return dy * sigma(-x)

    return np.logaddexp(0, x), vjp_x


for where, x in [("at x = 0", np.zeros(5)), ("at random x", u)]:
    verdict = "right" if largest_error(wrong_softplus, x) < 1e-7 else "WRONG"
    print(f"wrong_softplus {where}: {verdict}")
assert largest_error(wrong_softplus, np.zeros(5)) < 1e-7 < largest_error(wrong_softplus, u)

# %% [markdown]
# At 0 the check lets it pass, since $\sigma(0) = \sigma(-0) = \tfrac12$. **A check at a special point proves little**: check at random ones. The numbers themselves then name the mistake. With `dy` = 1:

# %%
_, rule = wrong_softplus.__wrapped__(u)
by_rule = rule(np.ones(5))
truth = measured(lambda x: np.sum(np.logaddexp(0, x)), u)
for name, row in [("by the rule", by_rule), ("measured", truth), ("sum of both", by_rule + truth)]:
    print(f"{name:12}", "  ".join(f"{number:5.2f}" for number in row))
assert np.allclose(by_rule + truth, 1)

# %% [markdown]
# They add up to 1 everywhere, and $\sigma(-x) = 1 - \sigma(x)$: that is the diagnosis. In a whole program the same mistake can be seen, too. The loss below is that of the experiment to come: for $N$ images of eights and nines, with $t_n = 1$ for a nine and 0 for an eight,
#
# $$L(w) = \frac1N \sum_n \big[\log(1 + e^{z_n}) - t_n z_n\big] \qquad z = Xw$$
#
# For a nine that is the loss of Figure 1; for an eight it is $\log(1 + e^{z_n})$, small when the score is far below 0. Each row of $X$ has the 64 pixels and a constant 1, whose weight moves all scores together: $D = 65$.


# %%
def eights_and_nines(train):
    """X (N, 65), the pixels and a 1; t (N,), 1 for a nine and 0 for an eight."""
    images, labels = digits(train=train)[:]
    chosen = (labels == 8) | (labels == 9)
    pixels = images[chosen].reshape(-1, 64)
    return np.column_stack([pixels, np.ones(len(pixels))]), (labels[chosen] == 9) * 1.0


X, t = eights_and_nines(train=True)
print("X", X.shape, "of which nines:", int(t.sum()))


def loss(w, soft=softplus):
    z = scores(w, X=X)
    return mean(subtract(soft(z), multiply(z, t)))


def gradient(w, soft=softplus):
    w = leaf(w)
    return backward(loss(w, soft).node)[w.node]


# %%
w = rng.normal(size=65)
truth = measured(lambda w: loss(w).array, w)
maps, titles = [], []
for name, soft in [("right rule", softplus), ("wrong rule", wrong_softplus)]:
    by_rule = gradient(w, soft)
    maps += [by_rule, truth, by_rule - truth]
    titles += [f"{name}: $dL/dw$", "measured", "difference"]
maps = np.array(maps)
assert np.abs(maps[2]).max() < 1e-7 and np.abs(maps[5]).max() > 0.1

viz.show_feature_maps(maps[:, :64].reshape(6, 8, 8), titles, columns=3, signed=True)

# %% [markdown]
# *Figure 5. The gradient of the loss by the weight of each pixel, at random weights. Above, with the right rule, the difference from the measured one is blank. Below, with the wrong rule of softplus, it has a shape: wrong wherever there is ink.*
#
# Lesson 03 makes a tool of this, which finds such patterns by itself.

# %% [markdown]
# ## At work
#
# Eights and nines share their upper loop, so the two are not easily told apart. We train the weights with our own engine: start at $w = 0$ and take 200 steps, each a little down the gradient,
#
# $$w \leftarrow w - \eta\,\frac{dL}{dw} \qquad \eta = 0.5$$
#
# ($\eta$ is called the learning rate.) The score $z$ is used twice in the loss, by softplus and by the product with $t$: two paths meet there. That makes it a test of the plus sign in the reverse pass. We run three arms from the same start with the same 200 steps:
#
# - **added up**: our `backward`;
# - **overwritten**: the same, but where paths meet the gradient that comes last replaces the others;
# - **measured**: no reverse pass at all, central differences.


# %%
def overwriting_gradient(w):
    """The gradient by a reverse pass that forgets to add."""
    w = leaf(w)
    output = loss(w)
    gradients = {output.node: 1.0}
    for node in visiting_order(output.node):
        for source, rule in node.edges:
            gradients[source] = rule(gradients[node])
    return gradients[w.node]


def measured_gradient(w):
    return measured(lambda w: loss(w).array, w)


def train(gradient, steps=200, learning_rate=0.5):
    """Gradient descent from w = 0; the weights, and the loss before each step and at the end."""
    w, losses = np.zeros(65), []
    for _ in range(steps):
        losses.append(float(loss(w).array))
        w = w - learning_rate * gradient(w)
    return w, [*losses, float(loss(w).array)]


X_test, t_test = eights_and_nines(train=False)
arms = {
    "added up": gradient,
    "overwritten": overwriting_gradient,
    "measured": measured_gradient,
}
weights, losses = {}, {}
for name, how in arms.items():
    weights[name], losses[name] = train(how)
    right = np.mean((X_test @ weights[name] > 0) == t_test)
    print(f"{name:12} loss {losses[name][-1]:5.2f}   right on {len(t_test)} new images {right:.0%}")

assert losses["added up"][-1] < 0.1 < losses["added up"][0] < losses["overwritten"][-1]
assert np.mean((X_test @ weights["added up"] > 0) == t_test) > 0.9
assert np.mean((X_test @ weights["overwritten"] > 0) == t_test) < 0.6
assert np.allclose(weights["measured"], weights["added up"], atol=1e-6)

# %% [markdown]
# Nothing in these trainings is random, so there are no seeds to compare; and this loss is convex: it has no valley apart from the lowest, so no start gets stuck. Every one leads down to as low a loss, though not to the same weights.
#
# Overwriting is a disaster that raises no error. Of the two shares that reach $z$, $\sigma(z_n)$ from softplus and $-t_n$ from the product, only the one that comes last survives, $\sigma(z_n)$. It is positive for every image: all scores are pushed down, for eights and nines alike, and the loss climbs.
#
# The measured gradient leads to the same weights. What it costs shows when we count work: how many primitives and rules are run.

# %%
nodes = visiting_order(loss(leaf(np.zeros(65))).node)
primitives = sum(bool(node.edges) for node in nodes)
rules = sum(len(node.edges) for node in nodes)
work = {"added up": primitives + rules, "overwritten": primitives + rules}
work["measured"] = 2 * 65 * primitives
print("work for one step:", work)
assert (primitives, rules) == (5, 6) and work["measured"] > 50 * work["added up"]

with viz.use_style():
    figure, axes = viz.panels(1, 2, height=3.4)
    for ax, cost in zip(axes, [dict.fromkeys(work, 1), work]):
        for (name, curve), colour in zip(losses.items(), viz.COLOURS):
            along = cost[name] * np.arange(1, len(curve) + 1)
            style = (0, (4, 3)) if name == "measured" else "-"
            ax.plot(along, curve, color=colour, linestyle=style, label=name)
        ax.set(yscale="log", ylabel="loss")
        ax.grid(axis="y")
    axes[0].set(xlabel="step")
    axes[1].set(xlabel="primitives and rules run", xscale="log")
    axes[0].legend(frameon=False)
figure

# %% [markdown]
# *Figure 6. The loss of the three arms, against steps (left) and against work (right; both axes logarithmic). Left, the measured gradient (dashed) lies on top of the added-up one. Right, it is the same curve moved to the right: about sixty times the work for 65 weights, and the factor grows with the number of weights. Overwriting costs as little as adding up, and climbs.*

# %%
step_1 = -gradient(np.zeros(65))
step_1, final = (one[:64] / np.abs(one[:64]).max() for one in (step_1, weights["added up"]))
means = X[t == 1].mean(axis=0) - X[t == 0].mean(axis=0)
assert np.corrcoef(step_1, means[:64])[0, 1] > 0.99

viz.show_feature_maps(
    np.stack([step_1, final]).reshape(2, 8, 8), ["the first step", "after 200 steps"], signed=True
)

# %% [markdown]
# *Figure 7. The direction of the first step, and the weights after the last, each divided by its largest magnitude. Red speaks for a nine, blue for an eight. The first step is close to the average nine minus the average eight: blue where the lower loop of an eight has its left side.*

# %% [markdown]
# ## Paper and code
#
# **Who found it.** Seppo Linnainmaa's master's thesis of 1970 asks how rounding errors made at each operation add up in the result of a long computation. To first order, each error counts with the derivative of the result by that intermediate value; he computes all of them in one backward sweep. That is equation (reverse), without any network. (The English article followed in 1976.) Rumelhart, Hinton and Williams (1986) derive the same sweep for layered networks, as *back-propagation*, and show that hidden units learn useful features by it. Baydin et al. (2018) tell the whole history, with the many who found it in between, and keep apart what is often confused: symbolic differentiation, numerical differentiation, and this.
#
# **What it costs.** The gradient of one number costs at most a small constant times the program itself, whatever the number of inputs (the "cheap gradient principle", see Griewank and Walther, 2008). In our loss: 5 primitives forward, 6 rules back.
#
# | | a tape | a graph of nodes (PyTorch, here) |
# |---|---|---|
# | what is recorded | one list of all operations, in the order they ran | each result points to the operations behind it |
# | the backward pass | reads the list from its end | must find an order |
# | what nobody uses | stays on the list until that is cleared | is freed by itself when its result is dropped |
#
# The tape (or *Wengert list*, 1964) is the older form. Paszke et al. (2017) explain why PyTorch keeps no tape. The numbers on our nodes are what the tape knew, its order, without the tape.
#
# **PyTorch's engine** also numbers its nodes (`sequence_nr`), but the number only sets who goes first among the nodes that are ready. Readiness is counted: before it walks, the engine counts for each node how many edges will deliver a gradient (its *dependencies*), and a node runs when all have arrived. The number alone would not do there, as each thread counts for itself. The node of a leaf, `AccumulateGrad`, goes as soon as it is ready.
#
# **Here.** The library does what this lesson built: one counter for all threads, so the number alone gives the order. Instead of gathering all nodes first, it keeps those that wait in a heap (the function `gradients` in `minitorch_attn/engine/graph.py`), and it adds what this lesson left out: gradients of broadcast arrays, types, and an error if an array that a rule needs was overwritten.

# %% [markdown]
# ## Predict before you run
#
# **1.** `y = multiply(x, x)` at $x = 3$. Two edges lead from `y` to the same leaf. What does the overwriting pass give for $dy/dx$, and what does ours?

# %%
x = leaf(3.0)
y = multiply(x, x)
last = [rule(1.0) for _, rule in y.node.edges][-1]
print("overwriting:", last, " ours:", reverse_pass(y.node, 1.0)[x.node])

# %% [markdown]
# <details><summary>Answer</summary>
#
# Overwriting gives 3, half of the truth. Each rule of `multiply` knows one input only and returns `dy` times the other, 3. The derivative of $x^2$ is 6, the sum over both edges. No rule needs to know that its inputs are the same.
#
# </details>

# %% [markdown]
# **2.** Someone visits each node of our program $L = p\,s$ once, but in the order in which the walk first meets them: $L$, $p$, $s$, $a$, $b$. Which gradients come out wrong, and by how much?

# %%
a, b = leaf(3.0), leaf(2.0)
L = program(a, b)
gradients, waiting = {L.node: 1.0}, [L.node]
for node in waiting:  # grows while we walk: first met, first visited
    for source, rule in node.edges:
        if source not in waiting:
            waiting.append(source)
        gradients[source] = gradients.get(source, 0.0) + rule(gradients[node])
print("dL/da =", gradients[a.node], " dL/db =", gradients[b.node])

# %% [markdown]
# <details><summary>Answer</summary>
#
# Both. $p$ is visited before $s$, so it passes on 9 and not $9 + 6 = 15$: the paths through $s$ and then $p$ are lost. For $a$ that is $a \to p \to s \to L$ with 12, which leaves 24 of 36; for $b$ it is $b \to p \to s \to L$ with 18, which leaves 27 of 45. The 6 does arrive at $p$, too late.
#
# </details>

# %% [markdown]
# **3.** An array of a million bytes goes through 50 operations, each with the array itself as the other input, and only the last result is kept. How much memory does the graph hold if the operation is `add`? If it is `multiply`?

# %%
x = leaf(np.ones(125_000))  # 8 bytes each
for operation in (add, multiply):
    tracemalloc.start()
    y = operation(x, x)
    for _ in range(49):
        y = operation(y, x)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"{operation.__name__:8} about {held / 1e6:.0f} million bytes")

# %% [markdown]
# <details><summary>Answer</summary>
#
# `add`: the last result alone, a million bytes, for its rules mention no array. `multiply`: every intermediate result is an input of the next product, whose rules need it: 49 of them and the last, 50 million. What a network keeps for the way back is decided by its primitives' rules, and a rule should mention as little as it can.
#
# </details>

# %% [markdown]
# ## Exercises
#
# In [exercises/01_computational_graphs.ipynb](../exercises/01_computational_graphs.ipynb):
#
# 1. `divide`: a quotient in primitive form, with a rule for each input.
# 2. `log_add_exp`: $\log(e^a + e^b)$ in primitive form, safe for large numbers.
# 3. `visiting_order`: which nodes a reverse pass visits, and in which order.
# 4. `accumulate`: what meets at a node is added up, and nobody's array is written into.
# 5. `reverse_pass`: the whole walk.

# %% [markdown]
# ## What to remember
#
# - A gradient is a sum over paths of products over edges; sorting the paths by their first edge makes it one walk back that uses each edge once.
# - Reverse mode gives one result's derivatives by everything, forward mode everything's derivatives by one input. A loss is one result.
# - A primitive is a function of arrays that returns its output and its rules. That is all an engine needs to know.
# - Numbered nodes, largest first: each is visited once, when its gradient is complete. Where paths meet, add.
# - What the rules mention is kept until the walk back; all else is freed.

# %% [markdown]
# ## Sources
#
# - S. Linnainmaa, *The representation of the cumulative rounding error of an algorithm as a Taylor expansion of the local rounding errors* (in Finnish), master's thesis, University of Helsinki, 1970; and *Taylor expansion of the accumulated rounding error*, BIT 16, 1976.
# - D. E. Rumelhart, G. E. Hinton, R. J. Williams, *Learning representations by back-propagating errors*, Nature 323, 1986.
# - A. G. Baydin, B. A. Pearlmutter, A. A. Radul, J. M. Siskind, *Automatic differentiation in machine learning: a survey*, Journal of Machine Learning Research 18(153), 2018.
# - A. Griewank, A. Walther, *Evaluating Derivatives*, 2nd edition, SIAM, 2008.
# - R. E. Wengert, *A simple automatic derivative evaluation program*, Communications of the ACM 7(8), 1964.
# - A. Paszke et al., *Automatic differentiation in PyTorch*, NIPS Autodiff workshop, 2017; and PyTorch's source, `torch/csrc/autograd/engine.cpp` and `function.h`.
# - The images: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998, as they come with scikit-learn.
