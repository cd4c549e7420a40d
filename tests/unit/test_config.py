"""Command line, macros and substitutions file: what they give, and one clear line when wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from tomostream_ioc.__main__ import main
from tomostream_ioc.config import parse, resolve_macros
from tomostream_ioc.epics.database import template_macros
from tomostream_ioc.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_defaults_are_the_names_of_the_manual():
    config = parse([])
    assert config.prefix == "2bmb:TomoStream:"
    assert config.macros["TOMO_SCAN"] == "2bmb:TomoScanStream:"
    assert config.macros["IMAGE_P"] == "2bmb:TomoScanStream:PvaPluginPVPrefix"
    assert config.macros["RECON_PVA"] == "2bmb:TomoStream:StreamRecon"


def test_names_follow_the_prefix_and_options_win():
    config = parse(["--P", "7bm:", "--R", "TS:", "--DARK_PVA", "my:dark", "--TOMO_SCAN", ""])
    assert config.macros["RECON_PVA"] == "7bm:TS:StreamRecon"
    assert config.macros["DARK_PVA"] == "my:dark"
    assert config.macros["TOMO_SCAN"] == ""
    assert config.given == {"DARK_PVA", "TOMO_SCAN"}


def test_substitutions_file_gives_the_macros_and_options_win():
    example = ROOT / "db" / "tomoStream.substitutions"
    config = parse(["--substitutions", str(example), "--RECON_PVA", "my:recon"], template_macros)
    assert config.prefix == "2bmb:TomoStream:"
    assert config.macros["MCT_OPTICS"] == "2bm:MCTOptics:"
    assert config.macros["RECON_PVA"] == "my:recon"


def test_options_for_the_simulator_are_split_as_a_shell_does():
    config = parse(["--simulate", "--sim-arguments=--idle --scan 'my scan.h5'"])
    assert config.sim_arguments == ("--idle", "--scan", "my scan.h5")


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("8G", 8 << 30), ("500M", 500 << 20), ("2GiB", 2 << 30), ("1.5g", 3 << 29),
        ("64 kib", 65536), ("2GB", 2_000_000_000), ("123456789", 123456789), ("4096B", 4096),
        ("1T", 1 << 40),
    ],
)  # fmt: skip
def test_memory_limit_in_bytes(text, n_bytes):
    assert parse(["--memory-limit", text]).memory_limit == n_bytes


def test_without_a_memory_limit_there_is_none():
    assert parse([]).memory_limit is None


@pytest.mark.parametrize(
    "text", ["", "lots", "G", "8X", "8 G i B", "8Gi", "0x10", "nan", "1e9", "0", "0.1"]
)
def test_memory_limit_that_is_no_size_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match=r"--memory-limit '.*': give|is no size") as refused:
        parse(["--memory-limit", text])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("macros", "reason"),
    [
        ({"P": "$(Q)"}, "refers to Q, which is not defined"),
        ({"DARK_PVA": "$(DARK_PVA)x"}, "refers to itself"),
        ({"DARK_PVA": "a" * 40}, "a stringout record holds 39"),
        ({"P": "a" * 30, "R": "b" * 20}, "PV names would have"),
        ({"P": "", "R": ""}, "both empty"),
        ({"R": "Tomo Stream:"}, "no blanks"),
        ({"DARK_PVA": "$(P"}, "the bracket is not closed"),
    ],
)
def test_wrong_macros_say_what_is_wrong(macros, reason):
    with pytest.raises(ConfigError, match=reason):
        resolve_macros(macros)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--timeout", "inf"], "no finite number"),
        (["--timeout", "1e300"], "too long"),
        (["--lens-timeout", "nan"], "no finite number"),
        (["--autosave-period", "0"], "positive number of seconds"),
        (["--autosave-sequence-period", "abc"], "'abc' is no number"),
        (["--seconds", "1e10"], "too long"),
        (["--read-from", __file__], "is a file, not a folder"),
        (["--simulate", str(ROOT)], "this is no file"),
        (["--read-from", 300 * "a"], "can't be used: File name too long"),
    ],
)
def test_options_out_of_range_are_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason) as refused:
        parse(arguments)
    assert "\n" not in str(refused.value)


def test_a_folder_of_images_may_be_made_later(tmp_path):
    assert parse(["--read-from", str(tmp_path / "later")]).read_from == (tmp_path / "later",)


def run(*arguments):
    """The program as a process: takes a second, so for what shows only there."""
    return subprocess.run(
        [sys.executable, "-m", "tomostream_ioc", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def assert_refused(ended, reason):
    assert ended.returncode == 2
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("tomostream_ioc: ")
    assert reason in lines[0]


@pytest.fixture
def run_here(monkeypatch, capsys):
    """The program in this process, whose garbage is collected and whose log is pytest's."""
    monkeypatch.setattr("tomostream_ioc.arguments.end_quickly", lambda: None)
    monkeypatch.setattr("tomostream_ioc.console.set_up_logging", lambda *_: None)
    monkeypatch.chdir(ROOT)

    def run_here(*arguments):
        exit_code = main(arguments)
        return subprocess.CompletedProcess(arguments, exit_code, *capsys.readouterr())

    return run_here


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--P"], "expected one argument"),
        (["--substitutions", "no/such.file"], "no/such.file"),
        (["--simulate", "no_such_scan.h5"], "there is no such file"),
        (["--device", "tpu"], "use auto, cpu, cuda or cuda:k"),
        (["--seconds", "-1"], "positive number of seconds"),
        (["--P", "$(NOT_THERE)"], "NOT_THERE"),
        (["--png", "slices.xyz"], "ends in .png"),
        (["--simulate", "--TOMO_SCAN", ""], "--simulate needs a TOMO_SCAN prefix"),
        (["--simulate", "--IMAGE_P", "my:prefix"], "an image channel whose name ends in Image"),
        (["--simulate", "--sim-arguments=--P 'a"], "No closing quotation"),
        (["--sim-arguments=--idle"], "for --simulate, which is not given"),
        (["--P", "x.y:"], "'.' can't be in a record's name"),
        (["--P", '{"ts":1}'], "can't be in a record's name"),
        (["--P", "\u00e4:"], "can't be in a record's name"),
        (["--RECON_PVA", ""], "the slices need a channel name"),
        (["--interfaces", "nohost"], "'nohost' is no IPv4 address"),
        (["--interfaces", ""], "'' is no IPv4 address"),
        (["--interfaces", "192.0.2.1"], "this machine has no such address"),
        (["--autosave-dir", ""], "the name is empty"),
        (["--curve-keys", ""], "the name is empty"),
        (["--curve-keys", "no/such"], "--curve-keys no/such: there is no such folder"),
        (["--curve-keys", str(ROOT / "db")], f"There is no CURVE key {ROOT}/db/client.key_secret"),
        (["--autosave-dir", __file__], "this is no folder"),
        (["--autosave-dir", f"{__file__}/below"], "this is no folder"),
    ],
)
def test_what_can_not_be_used_ends_with_one_line_and_exit_code_2(run_here, arguments, reason):
    assert_refused(run_here(*arguments), reason)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        # before any library is loaded; with all of them; when threads have started
        (["--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--RECON_PVA", "2bmb:TomoStream:Center"], "2bmb:TomoStream:Center is a record"),
    ],
)
def test_the_process_ends_with_one_line_and_exit_code_2(arguments, reason):
    assert_refused(run(*arguments), reason)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EPICS_CA_SERVER_PORT", "70000"),
        ("EPICS_PVAS_SERVER_PORT", "99999"),
        ("EPICS_PVAS_BROADCAST_PORT", "-1"),
    ],
)
def test_a_variable_that_is_no_port_ends_with_one_line(monkeypatch, run_here, name, value):
    monkeypatch.setenv(name, value)
    assert_refused(run_here("--interfaces", "127.0.0.1", "--seconds", "1"), name)


@pytest.mark.parametrize(
    ("name", "value"), [("EPICS_CA_SERVER_PORT", "abc"), ("EPICS_CA_MAX_ARRAY_BYTES", "many")]
)
def test_a_variable_that_libraries_choke_on_ends_with_one_line(monkeypatch, name, value):
    """Also where one reads it while it is imported."""
    monkeypatch.setenv(name, value)
    assert_refused(run("--interfaces", "127.0.0.1", "--seconds", "1"), name)


def test_substitutions_file_that_can_not_be_read_names_file_and_line(run_here, tmp_path):
    wrong = tmp_path / "wrong.substitutions"
    wrong.write_text('file "tomoStream.template" {\npattern {P, R}\n{a:, }}}}\n')
    assert_refused(run_here("--substitutions", str(wrong)), "wrong.substitutions")


def test_list_pvs_prints_every_record():
    ended = run("--P", "x:", "--R", "y:", "--list-pvs")
    assert ended.returncode == 0
    assert "x:y:StartRecon" in ended.stdout
    assert "x:y:StreamRecon" in ended.stdout  # the initial value of ReconPVAName


@pytest.mark.parametrize(
    ("option", "says"), [("--version", "tomostream_ioc"), ("--help", "--simulate")]
)
def test_version_and_help(run_here, capsys, option, says):
    with pytest.raises(SystemExit) as left:
        run_here(option)
    assert left.value.code == 0
    assert says in capsys.readouterr().out
