#!/usr/bin/env python
"""Count the parameters of a config's model, by module and by stage.

cervical-d2 parameters --config-file quick/demo.yaml

Needs no data: the number of classes comes from DATASETS.TRAIN's description. The last line is `trainable: 41.17 M`.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a path, or quick/demo.yaml")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="overrides of config keys")


def run(args: argparse.Namespace) -> None:
    """Build the model on the CPU, count, print."""
    from cervical_d2.config import load_config, set_num_classes
    from cervical_d2.datasets.registry import class_names, resolve_all
    from cervical_d2.engine.parameters import parameter_table, trainable
    from cervical_d2.modeling import build_model

    cfg = load_config(args.config_file, args.opts)
    names = class_names(resolve_all(cfg.DATASETS.TRAIN))
    set_num_classes(cfg, len(names))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    print(f"{len(names)} classes\n{parameter_table(model)}\n\ntrainable: {trainable(model) / 1e6:.2f} M")


if __name__ == "__main__":
    from cli import script

    script(__file__)
