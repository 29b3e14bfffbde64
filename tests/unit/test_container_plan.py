"""What a container's mounts and membership make of the plan; the texts are those of real containers."""

from __future__ import annotations

from agents.container import Plan, plan

ID = "/docker/4f1c"
V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids")


def v1_mounts(root: str, flags: str = "ro", points: str = "/sys/fs/cgroup/{}") -> str:
    lines = [
        f"{190 + n} 189 0:{29 + n} {root} {points.format(name)} {flags},nosuid,nodev,noexec - cgroup cgroup rw,{name}"
        for n, name in enumerate(V1)
    ]
    return "\n".join(["189 188 0:50 / /sys/fs/cgroup rw,nosuid - tmpfs tmpfs rw,mode=755", *lines])


def v1_membership(path: str, v2: str = "/") -> str:
    return "\n".join([*(f"{n}:{name}:{path}" for n, name in enumerate(V1, 1)), f"0::{v2}"])


def v2_mount(root: str, flags: str = "ro") -> str:
    return f"41 40 0:26 {root} /sys/fs/cgroup {flags},nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate"


def test_in_a_v1_container_the_needed_hierarchies_are_made_writable_and_nothing_is_moved():
    found = plan(v1_mounts(ID), v1_membership(ID))
    needed = ("cpu", "cpuacct", "memory", "freezer", "pids")
    assert found == Plan(tuple(f"/sys/fs/cgroup/{name}" for name in needed), "", "")


def test_a_v1_container_with_a_cgroup_namespace_of_its_own_is_the_same():
    assert plan(v1_mounts("/"), v1_membership("/")) == plan(v1_mounts(ID), v1_membership(ID))


def test_where_a_v1_container_sees_every_cgroup_the_agent_works_below_its_own():
    found = plan(v1_mounts("/", "rw"), v1_membership(ID))
    assert found == Plan((), "", ID.strip("/"))


def test_hierarchies_that_disagree_about_the_own_group_give_no_root():
    text = v1_membership(ID).replace(f"memory:{ID}", "memory:/elsewhere")
    assert plan(v1_mounts("/", "rw"), text).root == ""


def test_in_a_v2_container_processes_move_out_of_the_way_of_the_controllers():
    assert plan(v2_mount("/"), "0::/\n") == Plan(("/sys/fs/cgroup",), "/sys/fs/cgroup", "")


def test_in_a_v2_container_that_sees_every_cgroup_the_own_one_is_emptied():
    found = plan(v2_mount("/"), f"0::{ID}\n")
    assert found == Plan(("/sys/fs/cgroup",), f"/sys/fs/cgroup{ID}", ID.strip("/"))


def test_the_empty_v2_of_a_hybrid_machine_is_left_alone():
    unified = "50 40 0:30 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup rw"
    assert plan(v1_mounts("/", "rw") + "\n" + unified, v1_membership("/", "/")).emptied == ""


def test_a_writable_mount_is_not_remounted():
    assert plan(v2_mount("/", "rw"), "0::/\n").remount == ()


def test_what_covers_proc_is_taken_off_from_the_inside_out_and_nothing_else():
    covers = [
        "70 69 0:41 / /proc rw,nosuid - proc proc rw",
        "46 70 0:41 /sys /proc/sys ro,nosuid - proc proc rw",
        "47 46 0:47 / /proc/sys/fs ro - tmpfs tmpfs ro",
        "51 70 0:42 /null /proc/keys rw,nosuid - tmpfs tmpfs rw,mode=755",
        "52 46 0:43 / /proc/sys/fs/binfmt_misc rw - binfmt_misc binfmt_misc rw",
        "53 73 0:48 / /sys/firmware ro - tmpfs tmpfs ro",
    ]
    assert plan("\n".join(covers), "0::/\n").covers == ("/proc/keys", "/proc/sys/fs", "/proc/sys")


def test_lines_that_are_no_mounts_are_ignored():
    assert plan("\nnonsense\n1 2 3 - \n", "") == Plan((), "", "")
