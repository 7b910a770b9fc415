#!/bin/sh
# Writes the reports of docs/results/cifar10_resnet20: a published CIFAR-10 ResNet-20 is imported,
# served, and evaluated through gRPC by the commands that any user has. 16 to 20 minutes on 2 cores.
#
#   EMBEDKIT_TEST_DATA=DIR tools/report_cifar10.sh WORK [OUT]
#
# WORK gets the bundle and the embeddings (a second run starts from them), OUT the reports.
set -eu
data=${EMBEDKIT_TEST_DATA:-../shared/data}
work=${1:?expected a working folder as the first argument}
out=${2:-docs/results/cifar10_resnet20}
port=${PORT:-50951}
embedkit="${PYTHON:-.venv/bin/python} -m embedkit"

if [ ! -d "$work/models/cifar10-resnet20/1" ]; then
    $embedkit export --name cifar10-resnet20 --models "$work/models" \
        --from "torch:$data/weights/resnet20_cifar10.safetensors" --encoder resnet20 --input 32x32x3 \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --head-keys linear.weight,linear.bias \
        --classes "$data/cifar10.zip"
fi
$embedkit serve --models "$work/models" --data-dir "$work/var" --bind "127.0.0.1:$port" --metrics-bind off &
server=$!
trap 'kill $server' EXIT

evaluate() {  # name of the report, and the options that are its own
    name=$1
    shift
    echo "evaluating: $name"
    $embedkit eval --server "127.0.0.1:$port" --retry-s 60 --model cifar10-resnet20 \
        --models "$work/models" --cache "$work/cache" --train "$data/cifar10.zip:train" --out "$work/$name" "$@"
    mkdir -p "$out/$name"
    cp "$work/$name/report.json" "$work/$name/report.html" "$out/$name/"
}

# Raw pixels of 50,000 training images take longer than all else: they are measured once, in jpeg.
evaluate clean --test "$data/cifar10.zip:test" --suite classify,knn,ood,parity --no-baselines \
    --near "$data/cifar100_subset.zip" --far "$data/mnist.npz:test" --detector knn \
    --detector mahalanobis --detector relative_mahalanobis --detector msp --detector energy --detector vim
# Tiny-ImageNet's images are JPEG files, so the known images are too: else a detector of JPEG would do.
evaluate jpeg --test "$data/cifar10_test_jpeg75.npz" --suite classify,knn,ood \
    --near "$data/tinyimagenet32_val_jpeg.npz"
evaluate attacked --test "$data/cifar10.zip:test" --suite robustness --no-baselines \
    --attacks pgd --radius 1 --radius 2 --radius 8 --limit-attack 100 --no-attack-checks
