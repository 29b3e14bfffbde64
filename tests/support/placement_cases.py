"""Questions to the placement rules with their answers, in the form that `skerry conformance` reads.

Worked out by hand from the rules as Kubernetes documents them; at least one for each rule.
"""

from __future__ import annotations

from typing import Any

NO, NEVER = "Unschedulable", "UnschedulableAndUnresolvable"


def case(
    rule: str, stage: str, pod: dict[str, Any], nodes: list[dict[str, Any]], expect: Any, **more: Any
) -> dict[str, Any]:
    return {
        "id": f"{rule}/{stage}",
        "plugin": rule,
        "stage": stage,
        "pod": pod,
        "nodes": nodes,
        "expect": expect,
        **more,
    }


def filtered(
    rule: str, pod: dict[str, Any], nodes: list[dict[str, Any]], codes: list[str | None], **more: Any
) -> dict[str, Any]:
    expect: list[dict[str, Any]] = []
    for node, code in zip(nodes, codes, strict=True):
        expect.append({"node": node["name"], "feasible": code is None} | ({"code": code} if code else {}))
    return case(rule, "filter", pod, nodes, expect, **more)


def scored(
    rule: str, pod: dict[str, Any], nodes: list[dict[str, Any]], scores: list[int], **more: Any
) -> dict[str, Any]:
    expect = [{"node": node["name"], "score": score} for node, score in zip(nodes, scores, strict=True)]
    return case(rule, "score", pod, nodes, expect, **more)


def node(name: str, labels: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "labels": labels or {}, **more}


def asks(**requests: int) -> list[dict[str, Any]]:
    return [{"requests": requests}]


def on(where: str, name: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "nodeName": where, **more}


def is_in(key: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": "In", "values": list(values)}]}


APP = is_in("app", "web")
ZONED = [node("a1", {"zone": "a"}), node("a2", {"zone": "a"}), node("b1", {"zone": "b"}), node("none")]
HOLDING = [
    node("n1", allocatable={"cpu": 1000, "memory": 1000, "pods": 9}),
    node("n2", allocatable={"cpu": 1000, "memory": 1000, "pods": 9}),
]
CPU_MEMORY = [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 3}]
NEAR_WEB = {"pod": {"required": [{"labelSelector": APP, "topologyKey": "zone"}]}}
APART_FROM_WEB = {"podAnti": {"required": [{"labelSelector": APP, "topologyKey": "zone"}]}}
RATHER_NEAR_WEB = {"pod": {"preferred": [{"weight": 5, "term": {"labelSelector": APP, "topologyKey": "zone"}}]}}
EVENLY = {"topologyKey": "zone", "maxSkew": 1, "labelSelector": APP}
WEB = {"app": "web"}


def expression(operator: str, *values: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": "gen", "operator": operator, "values": list(values)}]}
    return {"affinity": {"node": {"required": {"terms": [term]}}}}


AGED = [node("old", {"gen": "3"}), node("new", {"gen": "12"}), node("odd", {"gen": "x"}), node("none")]
NODE_RULES = [
    filtered("nodename", {"nodeName": "b"}, [node("a"), node("b")], [NEVER, None]),
    filtered("nodeunschedulable", {}, [node("a", unschedulable=True), node("b")], [NEVER, None]),
    filtered(
        "nodeunschedulable",
        {"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]},
        [node("a", unschedulable=True)],
        [None],
    ),
    filtered("nodeaffinity", expression("In", "3", "4"), AGED, [None, NEVER, NEVER, NEVER]),
    filtered("nodeaffinity", expression("NotIn", "3"), AGED, [NEVER, None, None, None]),
    filtered("nodeaffinity", expression("Exists"), AGED, [None, None, None, NEVER]),
    filtered("nodeaffinity", expression("DoesNotExist"), AGED, [NEVER, NEVER, NEVER, None]),
    filtered("nodeaffinity", expression("Gt", "3"), AGED, [NEVER, None, NEVER, NEVER]),
    filtered("nodeaffinity", expression("Lt", "12"), AGED, [None, NEVER, NEVER, NEVER]),
    filtered("nodeaffinity", expression("NotIn", "{bad}"), AGED, [NEVER] * 4),
    filtered("nodeaffinity", {"affinity": {"node": {"required": {"terms": [{}]}}}}, AGED, [NEVER] * 4),
    filtered("nodeaffinity", {"nodeSelector": {"gen": "3"}}, AGED, [None, NEVER, NEVER, NEVER]),
    filtered(
        "nodeaffinity",
        {
            "affinity": {
                "node": {
                    "required": {
                        "terms": [
                            {
                                "matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["old"]}],
                                "matchExpressions": [{"key": "gen", "operator": "Exists"}],
                            }
                        ]
                    }
                }
            }
        },
        AGED,
        [NEVER, None, None, NEVER],
    ),
    filtered(
        "nodeaffinity",
        expression("Gt", "1"),
        AGED,
        [NEVER, None, NEVER, NEVER],
        args={"addedAffinity": {"required": {"terms": [is_in("gen", "12")]}}},
    ),
    scored(
        "nodeaffinity",
        {
            "affinity": {
                "node": {
                    "preferred": [
                        {"weight": 1, "term": is_in("gen", "3")},
                        {"weight": 3, "term": is_in("gen", "3", "12")},
                    ]
                }
            }
        },
        AGED,
        [100, 75, 0, 0],
        normalized=True,
    ),
]

TAINTED = [
    node("hard", taints=[{"key": "k", "value": "7", "effect": "NoSchedule"}]),
    node("harder", taints=[{"key": "k", "value": "9", "effect": "NoExecute"}]),
    node("soft", taints=[{"key": "k", "value": "7", "effect": "PreferNoSchedule"}]),
]


def tolerating(operator: str, value: str = "", effect: str = "", key: str = "k") -> dict[str, Any]:
    return {"tolerations": [{"key": key, "operator": operator, "value": value, "effect": effect}]}


TAINT_RULES = [
    filtered("tainttoleration", {}, TAINTED, [NEVER, NEVER, None]),
    filtered("tainttoleration", tolerating("Equal", "7"), TAINTED, [None, NEVER, None]),
    filtered("tainttoleration", tolerating("Exists", key=""), TAINTED, [None, None, None]),
    filtered("tainttoleration", tolerating("Exists", effect="NoExecute"), TAINTED, [NEVER, None, None]),
    filtered(
        "tainttoleration", tolerating("Gt", "8"), TAINTED, [NEVER, None, None], args={"comparisonOperators": True}
    ),
    filtered(
        "tainttoleration", tolerating("Lt", "8"), TAINTED, [None, NEVER, None], args={"comparisonOperators": True}
    ),
    filtered("tainttoleration", tolerating("Lt", "8"), TAINTED, [NEVER, NEVER, None]),
    scored("tainttoleration", {}, TAINTED, [100, 100, 0], normalized=True),
]


def opens(port: int, protocol: str = "TCP", address: str = "") -> dict[str, Any]:
    return {"containers": [{"ports": [{"hostPort": port, "protocol": protocol, "hostIP": address}]}]}


AT_80 = [on("n1", **opens(80, address="10.0.0.1")), on("n2", **opens(80, "UDP"))]
AMOUNT_RULES = [
    filtered("nodeports", opens(80), HOLDING, [NO, None], existing=AT_80),
    filtered("nodeports", opens(80, address="10.0.0.2"), HOLDING, [None, None], existing=AT_80),
    filtered(
        "noderesources.fit",
        {"containers": [*asks(cpu=200), *asks(cpu=200)], "initContainers": asks(cpu=500), "overhead": {"cpu": 100}},
        HOLDING,
        [NO, None],
        existing=[on("n1", containers=asks(cpu=401)), on("n2", containers=asks(cpu=400))],
    ),
    case(
        "noderesources.fit",
        "filter",
        {"containers": asks(**{"example.com/x": 2, "example.org/y": 1})},
        [node("n", allocatable={"example.com/x": 2, "pods": 1})],
        [
            {
                "node": "n",
                "feasible": False,
                "insufficient": [
                    {"resource": "example.com/x", "requested": 2, "used": 1, "capacity": 2},
                    {"resource": "pods", "requested": 1, "used": 1, "capacity": 1},
                ],
            }
        ],
        existing=[on("n", containers=asks(**{"example.com/x": 1}))],
        args={"ignoredResourceGroups": ["example.org"]},
    ),
    # cpu 700 and 300 of 1000 free; memory: 200 MiB assumed for what does not say, more than there is.
    scored(
        "noderesources.LeastAllocated",
        {"containers": asks(cpu=300, memory=500)},
        HOLDING,
        [55, 0],
        existing=[on("n2", containers=asks(cpu=700))],
        args={"resources": [{"name": "cpu", "weight": 1}, {"name": "memory", "weight": 3}]},
    ),
    scored(
        "noderesources.MostAllocated",
        {"containers": asks(cpu=300, memory=500)},
        HOLDING,
        [45, 62],
        existing=[on("n2", containers=asks(cpu=700, memory=0))],
        args={"resources": CPU_MEMORY},
    ),
    # a line from 0 at 0 % to 10 at 50 % and down to 4 at 100 %: cpu 60, memory 100 | cpu 40, memory 100
    scored(
        "noderesources.RequestedToCapacityRatio",
        {"containers": asks(cpu=300, memory=500)},
        HOLDING,
        [90, 85],
        existing=[on("n2", containers=asks(cpu=700))],
        args={
            "resources": CPU_MEMORY,
            "shape": [
                {"utilization": 0, "score": 0},
                {"utilization": 50, "score": 10},
                {"utilization": 100, "score": 4},
            ],
        },
    ),
    # shares 0.3 and 0.5: deviation 0.1 | 1 and 0.5: 0.25
    scored(
        "noderesources.balanced",
        {"containers": asks(cpu=300, memory=500)},
        HOLDING,
        [90, 75],
        existing=[on("n2", containers=asks(cpu=700))],
        args={"resources": CPU_MEMORY},
    ),
    {
        **case("noderesources.LeastAllocated", "config", {}, [], []),
        "args": {"resources": [{"name": "cpu", "weight": 0}, {"name": "memory", "weight": 101}]},
        "expect_config_error": ["resources[0].weight", "resources[1].weight"],
    },
    # 511.5 MiB count of 511.5 + 23 (half the nodes have it)
    scored(
        "imagelocality",
        {"containers": [{"image": "repo/x"}]},
        [node("n1", images=[{"names": ["repo/x:latest"], "sizeBytes": 1023 << 20}]), node("n2")],
        [50, 0],
    ),
]

RIVALS = [on("a1", labels=WEB), on("a2", labels=WEB, terminating=True), on("b1", labels={"app": "db"})]
RACKED = [node("x1", {"zone": "a", "rack": "1"}), node("x2", {"zone": "a"}), node("y1", {"zone": "b", "rack": "2"})]
BY_RACK = {"topologyKey": "rack", "maxSkew": 5, "labelSelector": APP, "whenUnsatisfiable": "DoNotSchedule"}
BETWEEN = [
    # Only nodes that are in a domain of every constraint count, so zone a has nothing yet.
    filtered(
        "podtopologyspread",
        {"labels": WEB, "topologySpread": [{**EVENLY, "whenUnsatisfiable": "DoNotSchedule"}, BY_RACK]},
        RACKED,
        [None, NEVER, NO],
        existing=[on("x2", labels=WEB), on("y1", labels=WEB)],
    ),
    filtered(
        "podtopologyspread",
        {"labels": WEB, "topologySpread": [{**EVENLY, "whenUnsatisfiable": "DoNotSchedule"}]},
        ZONED,
        [NO, NO, None, NEVER],
        existing=RIVALS,
    ),
    filtered(
        "podtopologyspread",
        {"labels": WEB, "topologySpread": [{**EVENLY, "minDomains": 3, "whenUnsatisfiable": "DoNotSchedule"}]},
        ZONED,
        [NO, NO, NO, NEVER],
        existing=[on("a1", labels=WEB), on("b1", labels=WEB)],
    ),
    filtered(
        "podtopologyspread",
        {
            "labels": WEB,
            "nodeSelector": {"zone": "a"},
            "topologySpread": [{**EVENLY, "nodeAffinityPolicy": "Ignore", "whenUnsatisfiable": "DoNotSchedule"}],
        },
        ZONED,
        [NO, NO, None, NEVER],
        existing=RIVALS,
    ),
    filtered(
        "podtopologyspread",
        {
            "labels": WEB,
            "topologySpread": [{**EVENLY, "nodeTaintsPolicy": "Honor", "whenUnsatisfiable": "DoNotSchedule"}],
        },
        [ZONED[0], {**ZONED[2], "taints": [{"key": "k", "effect": "NoSchedule"}]}],
        [None, None],
        existing=[on("a1", labels=WEB)],
    ),
    # ln(4) = 1.386: 2 in zone a, 1 in b: 2.77 and 1.38, cut to 2 and 1
    scored(
        "podtopologyspread",
        {"labels": WEB, "topologySpread": [{**EVENLY, "whenUnsatisfiable": "ScheduleAnyway"}]},
        ZONED,
        [50, 50, 100, 0],
        existing=[on("a1", labels=WEB), on("a2", labels=WEB), on("b1", labels=WEB)],
        normalized=True,
    ),
    # two domains of hosts, ln(4)·2 + 2 and 0 + 2
    scored(
        "podtopologyspread",
        {"labels": WEB},
        [node("h1", {"kubernetes.io/hostname": "h1"}), node("h2", {"kubernetes.io/hostname": "h2"})],
        [50, 100],
        existing=[on("h1", labels=WEB), on("h1", labels=WEB)],
        services=[{"selector": WEB}],
        args={"defaultingType": "System"},
        normalized=True,
    ),
    filtered("interpodaffinity", {"affinity": NEAR_WEB}, ZONED, [None, None, NEVER, NEVER], existing=RIVALS),
    filtered("interpodaffinity", {"affinity": NEAR_WEB, "labels": WEB}, ZONED, [None, None, None, NEVER]),
    filtered("interpodaffinity", {"affinity": NEAR_WEB, "labels": {"app": "db"}}, ZONED, [NEVER] * 4),
    filtered("interpodaffinity", {"affinity": APART_FROM_WEB}, ZONED, [NO, NO, None, None], existing=RIVALS),
    filtered(
        "interpodaffinity",
        {"labels": WEB},
        ZONED,
        [None, None, NO, None],
        existing=[on("b1", affinity=APART_FROM_WEB)],
    ),
    filtered(
        "interpodaffinity",
        {
            "namespace": "x",
            "affinity": {
                "podAnti": {
                    "required": [
                        {
                            "labelSelector": APP,
                            "topologyKey": "zone",
                            "namespaceSelector": {"matchLabels": {"team": "t"}},
                        }
                    ]
                }
            },
        },
        ZONED,
        [NO, NO, None, None],
        existing=[{**row, "namespace": row["nodeName"]} for row in RIVALS],
        namespaces=[{"name": "a1", "labels": {"team": "t"}}, {"name": "x"}],
    ),
    filtered(
        "interpodaffinity",
        {"affinity": {"pod": {"required": [{"labelSelector": is_in("app", "{bad}"), "topologyKey": "zone"}]}}},
        ZONED,
        [NEVER] * 4,
    ),
    scored(
        "interpodaffinity",
        {"affinity": RATHER_NEAR_WEB, "labels": WEB},
        ZONED,
        [100, 100, 40, 0],
        existing=[on("a1", labels=WEB), on("b1", affinity=NEAR_WEB), on("b1", affinity=NEAR_WEB)],
        args={"hardPodAffinityWeight": 1},
        normalized=True,
    ),
    {
        **case(
            "interpodaffinity",
            "score",
            {
                "affinity": {
                    "pod": {
                        "preferred": [
                            {"weight": 1, "term": {"labelSelector": is_in("app", "{bad}"), "topologyKey": "zone"}}
                        ]
                    }
                }
            },
            ZONED,
            [],
        ),
        "expect_error": True,
    },
]


def held(where: str, name: str, cpu: int, priority: int, **more: Any) -> dict[str, Any]:
    return on(where, name, containers=asks(cpu=cpu), priority=priority, **more)


PREEMPTING = {"name": "new", "priority": 9, "containers": asks(cpu=500)}
FULL = [
    held("n1", "low", 500, 1, labels=WEB),
    held("n1", "lower", 500, 0, labels=WEB),
    held("n2", "even-lower", 500, -1),
    held("n2", "equal", 500, 9),
]
BY_FIT = {"filter": "NodeResourcesFit"}
PREEMPTION = [
    case(
        "preemption",
        "dry_run",
        PREEMPTING,
        HOLDING,
        {
            "candidates": [
                {"node": "n1", "victims": ["lower"], "pdbViolations": 0},
                {"node": "n2", "victims": ["even-lower"], "pdbViolations": 0},
            ]
        },
        existing=FULL,
        args=BY_FIT,
    ),
    # Only one of the two may be disrupted, so the second of them, the less important, is spared first.
    case(
        "preemption",
        "dry_run",
        PREEMPTING,
        HOLDING[:1],
        {"candidates": [{"node": "n1", "victims": ["low"], "pdbViolations": 0}]},
        existing=FULL,
        args=BY_FIT,
        pdbs=[{"selector": {"matchLabels": WEB}, "disruptionsAllowed": 1}],
    ),
    case("preemption", "select", PREEMPTING, HOLDING, {"any_of_nodes": ["n2"]}, existing=FULL, args=BY_FIT),
    case(
        "preemption",
        "preempt",
        PREEMPTING,
        HOLDING,
        {"nominated": "n2", "victims": ["even-lower"]},
        existing=FULL,
        args=BY_FIT,
    ),
    case(
        "preemption",
        "preempt",
        {**PREEMPTING, "preemptionPolicy": "Never"},
        HOLDING,
        {"nominated": None, "victims": []},
        existing=FULL,
        args=BY_FIT,
    ),
]

CASES = [
    {**each, "id": f"{each['id']}/{number}"}
    for number, each in enumerate([*NODE_RULES, *TAINT_RULES, *AMOUNT_RULES, *BETWEEN, *PREEMPTION])
]
