#!/usr/bin/env bash
# Builds the wheel and installs it where no checkout is in sight: one name, all data, working commands.
#   tests/install_check.sh [PYTHON]    PYTHON (default: .venv/bin/python) has hatchling, and the dependencies to borrow
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
python=$(realpath -s "${1:-.venv/bin/python}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '\n== %s\n' "$*"; }

say "build the sdist and the wheel, and the same wheel from the sdist"
"$python" -m hatchling build -d "$work/dist" 2> /dev/null
tar -xzf "$work"/dist/*.tar.gz -C "$work"
(cd "$work"/hebb_learning-* && "$python" -m hatchling build -t wheel -d "$work/again" 2> /dev/null)
cmp "$work"/dist/*.whl "$work"/again/*.whl

say "install it: one top-level name, one command"
"$python" -m venv --without-pip "$work/venv"
"$python" -m pip --python "$work/venv/bin/python" install -q --disable-pip-version-check --no-deps --no-index \
	"$work"/dist/*.whl
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
names=$(cd "$site" && ls | grep -v '^hebb_learning-.*\.dist-info$')
[ "$names" = hebb ] || { echo "site-packages holds: $names"; exit 1; }
for file in py.typed tuning/html_report_files/report.html.j2 tuning/html_report_files/tablesort.LICENCE.txt shipped/preset.json shipped/search_configs/seed.yaml \
	shipped/figures/published.csv; do
	[ -f "$site/hebb/$file" ] || { echo "the wheel lacks $file"; exit 1; }
done

say "run it from an empty folder, with the dependencies of $python"
"$python" -c 'import sys; print(*(path for path in sys.path if path.endswith("site-packages")), sep="\n")' \
	> "$site/borrowed.pth" # the .pth file of an editable install there stays unread
mkdir "$work/empty"
cd "$work/empty"
unset PYTHONPATH HEBB_HOME
export PATH="$work/venv/bin:$PATH"
"$work/venv/bin/python" -c "
import hebb
from hebb.core import shipped
assert hebb.__file__.startswith('$site'), hebb.__file__
assert shipped.CHECKOUT is None, shipped.CHECKOUT
"
hebb --version
hebb --help > help.txt
hebb list presets > presets.txt
hebb list configs > configs.txt
hebb search --config radius --dry-run > search.txt
small=(--dataset Digits_1 --set dataset_sup.samples=200 dataset_unsup.samples=200 --threads 1 --device cpu)
hebb train --preset 2SoftHebbCnnDigits "${small[@]}" --model-name small | tail -2
hebb evaluate small --device cpu | head -1
hebb analysis table small
hebb analysis evidence > evidence.txt
! hebb train "${small[@]}" --model-name small 2> refused.txt
grep -q 'holds a finished run' refused.txt

say "run the notebook of the public interface from an empty folder"
mkdir "$work/notebook"
cp "$checkout/tests/notebooks.py" "$checkout/docs/gallery/interface.md" "$work"
cd "$work/notebook"
"$work/venv/bin/python" "$work/notebooks.py" "$work/interface.md"
say "all is well"
