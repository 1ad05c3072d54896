"""Asks pip-audit about every installed package, and does not call a package audited that nobody looked at.

pip-audit ends with "No known vulnerabilities found" and status 0 when its advisory service knows none of the packages,
as behind a registry mirror. Here the two are told apart: a known vulnerability fails, an unreachable service is said.
"""

from __future__ import annotations

import json
import subprocess
import sys

TIMEOUT_S = 300.0


def main() -> int:
    """Exit status: 1 when a vulnerability is known, 2 when pip-audit's answer cannot be read, else 0."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return _unreachable(f"no answer within {TIMEOUT_S:.0f} s")
    if "ConnectionError" in done.stderr or "ServiceError" in done.stderr or "Max retries exceeded" in done.stderr:
        return _unreachable(done.stderr.strip().splitlines()[-1])
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        print(done.stdout + done.stderr, file=sys.stderr)
        return 2
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for found in package["vulns"]:
            fixed = ", ".join(found.get("fix_versions", [])) or "no release"
            print(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if packages and len(skipped) == len(packages):
        return _unreachable(f"it knows none of the {len(packages)} packages")
    if skipped:
        print(f"Not audited (unknown to the advisory service): {', '.join(skipped)}")
    print(f"pip-audit: {len(packages) - len(skipped)} packages looked up, {len(vulnerable)} with known vulnerabilities")
    return 1 if vulnerable else 0


def _unreachable(why: str) -> int:
    print(f"pip-audit: the advisory service cannot be asked from here ({why}). NOTHING WAS AUDITED.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
