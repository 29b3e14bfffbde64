"""Which row of the table a path belongs to."""

from __future__ import annotations

import pytest

from cluster.paths import Paths


@pytest.fixture
def paths() -> Paths[str]:
    made: Paths[str] = Paths()
    for path, method, row in (
        ("/v1/jobs", "GET", "list"),
        ("/v1/jobs", "POST", "submit"),
        ("/v1/jobs/{namespace}/{name}", "GET", "show"),
        ("/v1/nodes/{node}/cordon", "POST", "cordon"),
        ("/v1/nodes/{node}/{word}", "POST", "other"),
    ):
        made.add(path, method, row)
    return made


@pytest.mark.parametrize(
    ("path", "template", "parameters"),
    [
        ("/v1/jobs", "/v1/jobs", {}),
        ("/v1/jobs/default/web", "/v1/jobs/{namespace}/{name}", {"namespace": "default", "name": "web"}),
        ("/v1/jobs/a%2Fb/%C3%A9", "/v1/jobs/{namespace}/{name}", {"namespace": "a/b", "name": "é"}),
        ("/v1/nodes/a1/cordon", "/v1/nodes/{node}/cordon", {"node": "a1"}),
        ("/v1/nodes/a1/dance", "/v1/nodes/{node}/{word}", {"node": "a1", "word": "dance"}),
    ],
)
def test_a_path_finds_its_template_and_parameters(paths, path, template, parameters):
    found = paths.find(path)
    assert (found.path, found.parameters) == (template, parameters)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/jobs/", "/v1/jobs//web", "/v1/jobs/a/b/c", "/V1/jobs", "*"])
def test_a_path_that_fits_no_template_finds_nothing(paths, path):
    assert paths.find(path) is None


def test_methods_of_one_path_are_found_together(paths):
    assert paths.find("/v1/jobs").by_method == {"GET": "list", "POST": "submit"}


def test_a_row_cannot_be_in_the_table_twice(paths):
    with pytest.raises(AssertionError, match="twice"):
        paths.add("/v1/jobs", "GET", "again")
