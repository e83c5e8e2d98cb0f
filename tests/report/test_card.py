"""The model card: front matter for hubs, and metrics with intervals."""

import pytest
import yaml

from thirtytwo.report.card import write_card
from thirtytwo.text import interval, percent


def card_of(run):
    text = write_card(run).read_text(encoding="utf-8")
    assert text.startswith("---\n")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_front_matter_for_hubs(make_run):
    run, _ = make_run()
    front, _ = card_of(run)
    scores = run.read_json(run.metrics)
    assert front["library_name"] == "thirtytwo"
    assert front["pipeline_tag"] == "image-classification"
    assert "accuracy" in front["metrics"]
    assert "datasets" not in front
    (result,) = front["model-index"][0]["results"]
    assert result["task"]["type"] == "image-classification"
    assert result["dataset"] == {"name": "pets <i>", "type": "imagefolder", "split": "test"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values["Accuracy"] == pytest.approx(scores["accuracy"]["value"], abs=1e-6)
    assert values["Macro F1"] == pytest.approx(scores["macro_f1"]["value"], abs=1e-6)


@pytest.mark.parametrize(
    ("spec", "hub_name"),
    [
        ("cifar10", "uoft-cs/cifar10"),
        ("cifar100", "uoft-cs/cifar100"),
        ("hf:some/pets?label=fine", "some/pets"),
        ("photos/pets", None),
    ],
)
def test_data_set_has_its_hub_name(make_run, spec, hub_name):
    run, _ = make_run()
    environment = run.read_json(run.environment)
    environment["data"]["spec"] = spec
    run.write_json(run.environment, environment)
    front, body = card_of(run)
    assert front.get("datasets") == ([hub_name] if hub_name else None)
    assert "--recipe recipe.toml" in body


@pytest.mark.parametrize("front", ["license: mit\n", "license: other\nlicense_name: ours\n", "license: [\n", ""])
def test_a_license_that_was_added_to_the_card_is_kept(make_run, front):
    run, _ = make_run()
    _, before = card_of(run)
    assert "No licence is set" in before
    run.card.write_text(run.card.read_text(encoding="utf-8").replace("---\n", f"---\n{front}", 1), encoding="utf-8")
    after, body = card_of(run)
    valid = front if "[" not in front else ""
    assert {key: after[key] for key in after if "license" in key} == (yaml.safe_load(valid) or {})
    assert ("No licence is set" in body) is not bool(valid)


def test_hub_library_reads_results(make_run):
    hub = pytest.importorskip("huggingface_hub")
    run, _ = make_run()
    write_card(run)
    results = hub.ModelCard.load(run.card).data.eval_results
    assert [result.metric_name for result in results][:2] == [
        "Accuracy",
        "Accuracy with test-time augmentation",
    ]


def test_body_has_metrics_with_intervals_training_and_limitations(make_run):
    run, _ = make_run()
    _, body = card_of(run)
    scores = run.read_json(run.metrics)
    for text in (
        percent(scores["accuracy"]["value"]),
        interval(scores["accuracy"]["ci95"]),
        "n = 240",
        "Test evaluations: 1",
        "900 for training, 100 for validation",
        "thirtytwo train 'my pets' --recipe recipe.toml",
        "thirtytwo predict photo.jpg --model model.onnx",
        "## Limitations",
    ):
        assert text in body, text


def test_names_are_escaped(make_run):
    run, _ = make_run()
    _, body = card_of(run)
    assert "<b>" not in body
    assert "<script>" not in body
    assert "&lt;b&gt;cow&lt;/b&gt;" in body


@pytest.mark.parametrize(
    "without", [("metrics", "predictions"), ("metrics", "predictions", "environment", "split", "history"), ("history",)]
)
def test_incomplete_run(make_run, without):
    run, _ = make_run(without=without)
    front, body = card_of(run)
    assert ("model-index" in front) == ("metrics" not in without)
    assert ("| Accuracy |" in body) == ("metrics" not in without)
