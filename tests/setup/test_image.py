"""The recipe of the base image, and when a new image is due."""

from dataclasses import replace

from hutch.setup.apt import Release, Source
from hutch.setup.image import image_key, read_recipe, without_order

RELEASE = Release("debian", "bookworm", "12", "Debian GNU/Linux 12 (bookworm)")
SOURCES = [Source(("http://mirror.example/debian",), ("bookworm",), ("main",))]


def test_the_key_changes_with_the_recipe_and_the_sources_alone():
    recipe = read_recipe()
    key = image_key(recipe, RELEASE, SOURCES)
    assert key == image_key(read_recipe(), RELEASE, SOURCES)
    assert key != image_key(replace(recipe, packages=["git"]), RELEASE, SOURCES)
    assert key != image_key(recipe, RELEASE, [])


def test_no_host_key_and_no_identity_is_shared_between_instances():
    recipe = read_recipe()
    assert "/etc/ssh/ssh_host_*" in recipe.remove
    assert "/etc/machine-id" in recipe.empty


def test_nothing_waits_for_a_unit_whose_order_is_taken_away():
    unit = "[Unit]\nBefore=sysinit.target network.target\nAfter=a.service\n"
    assert without_order(unit) == "[Unit]\nBefore=shutdown.target\nAfter=a.service\n"


def test_a_mirrors_name_is_in_no_recipe():
    recipe = read_recipe()
    assert "://" not in "".join([*recipe.files.values(), *recipe.packages])
