"""The alerts are valid, fire when they should and not else, and lead to a paragraph; the dashboard's queries are valid, too.

The names of metrics and labels are checked against a running node, in node/tests/cluster/measured.rs. promtool is Prometheus' own;
`.ci/setup test` gets it from Debian's package.
"""

import json
import re
import subprocess

import pytest
import yaml
from conftest import ROOT, rendered

MONITORING = ROOT / "k8s/overlays/monitoring"
RULES = yaml.safe_load((MONITORING / "prometheusrule.yaml").read_text())["spec"]
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())


def promtool(*arguments, **options):
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(RULES))
    return path


def test_rules_are_valid(rules):
    ran = promtool("check", "rules", "--lint=all", "--lint-fatal", rules)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_promtool_would_say_something(tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": [{"alert": "A", "expr": "sum(balsa_ready"}]}]}))
    assert promtool("check", "rules", broken).returncode != 0


def test_alerts_fire_when_they_should_and_not_else(rules):
    """alerts.yaml says which alerts fire at the end of each story, or `at` a time; what it does not name must not."""
    stories = yaml.safe_load((ROOT / "k8s/tests/alerts.yaml").read_text())
    fired = set()
    for story in stories["tests"]:
        firing, at = story.pop("alert_rule_test"), story.pop("at", "119m")
        firing = {} if firing == "NONE" else firing
        fired |= firing.keys()
        severity = {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS}
        assert firing.keys() <= severity.keys()
        # The texts are looked at elsewhere: promtool wants them word for word, and asks for labels all the same.
        story["promql_expr_test"] = [
            {
                "expr": f'count by (alertname, {", ".join(labels)}) (ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [
                    {"labels": "{%s}" % ",".join(f'{k}="{v}"' for k, v in {"alertname": alert, **one}.items()), "value": 1}
                    for one in firing.get(alert, [])
                ],
            }
            for alert in severity
            for labels in [sorted(firing[alert][0]) if alert in firing else ["namespace"]]
        ]
    assert fired == {rule["alert"] for rule in ALERTS}, "each alert is seen to fire"
    test = rules.parent / "test.yaml"
    test.write_text(yaml.safe_dump(stories))
    ran = promtool("test", "rules", test)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_where_to_go_on(alert):
    annotations = alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert annotations.keys() == {"summary", "description", "runbook"}
    assert "$labels.namespace" in annotations["summary"]
    page, anchor = annotations["runbook"].split("#")
    headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert alert["alert"] in headings and anchor == alert["alert"].lower(), "a paragraph of its own"


def test_every_paragraph_about_an_alert_has_one():
    headings = re.findall(r"^#### (Balsa\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in ALERTS]


def test_the_queries_of_the_dashboard_are_valid(tmp_path):
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 30
    variables = {"$__rate_interval": "5m", "$namespace": "a", "$pod": "b"}
    for name, value in variables.items():
        queries = [query.replace(name, value) for query in queries]
    assert not any("$" in query for query in queries)
    path = tmp_path / "queries.yaml"
    rules = [{"record": f"dashboard:{at}", "expr": query} for at, query in enumerate(queries)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    ran = promtool("check", "rules", path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other():
    taken = set()
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_prometheus_finds_the_nodes():
    """There is no schema of the operator's objects here, so what they refer to is looked at by hand."""
    monitor = yaml.safe_load((MONITORING / "servicemonitor.yaml").read_text())
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "ServiceMonitor")
    assert monitor["spec"].keys() == {"selector", "endpoints", "sampleLimit"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    services = [each for each in rendered("base") if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()]
    found = [each for each in services if endpoint["port"] in [port["name"] for port in each["spec"]["ports"]]]
    assert [each["metadata"]["name"] for each in found] == ["balsa-headless"], "the job of all series"
    assert found[0]["spec"]["publishNotReadyAddresses"]
    jobs = {job for rule in ALERTS for job in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert jobs == {"balsa-headless"}


def test_grafana_finds_the_dashboard():
    [config_map] = [each for each in rendered("overlays/monitoring") if each["kind"] == "ConfigMap"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config_map["data"]["balsa.json"]) == DASHBOARD
