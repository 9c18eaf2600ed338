"""Classifier: what training and testing a model means here, whatever its layers are; CNN and CNNLSTM derive from it."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from lungdet.errors import InputError, require_whole
from lungdet.findings import TASKS
from lungdet.models.metrics import measure
from lungdet.models.optimisation import Learner
from lungdet.models.sequence import GAPS, SEQUENCES


class Classifier(Learner):
    """What every model here learns, and how that is measured: loss and metrics.

    A model derives from this class and defines `forward(image, length, when, case) -> logits (N, O)`, of which only
    the first two are always given: images (S, 1, H, W), how many are a case's (N,), and, as `Steps` takes them, when
    each was taken and the case's number; see `lungdet.data.serving.loading.Radiographs` for the batch. With
    `task=abnormal` the O = 2 logits are normal's and abnormal's, and the loss is the study's categorical cross-entropy.
    With `task=findings` there is one logit a finding and the loss is binary cross-entropy. Hyper-parameters live in the
    run's config, not in the checkpoint.

    Legend: N cases, S images (S = N without series), H x W pixels, C channels, h x w grid, L labels, O outputs.

    Args:
        backbone: (S, 1, H, W) -> (S, C, h, w), with the attribute `channels`; None of a model that sees no pixel.
        hidden: units of the fully connected layer that every model ends in.
        dropout: probability, before each fully connected layer.
        label_smoothing: in training, this share of a label goes to both classes in equal parts.
        sequence: what a model that reads sequences reads, of `lungdet.models.sequence.SEQUENCES`; every model accepts
            it, so that one sweep can set it for all.
        gap: (`sequence=visits`) the time between visits is told such a model too, as `age` or `visit` give it.
        visits: (`sequence=visits`) the most images that a case has.
        task: of `lungdet.findings.TASKS`.
        class_weights: (`task=abnormal`) of normal and abnormal in the loss; `balanced` weighs each class by the
            inverse of its share of the training images; None weighs both alike.
        seed: of dropout, see `lungdet.training.callbacks.Seeding`.
        learning: see `Learner`.

    Attributes:
        labels: the L manifest columns that are predicted.
        outputs: O.
        visits: the most images of a case that are looked at, 1 where it is the last alone.
        predictions: after validation, test or prediction, each case's `row` (N,) and `logit` (N, L), float32 log-odds,
            in ascending order of `row`, each once.
    """

    def __init__(
        self,
        backbone: nn.Module | None,
        *,
        hidden: int,
        dropout: float,
        label_smoothing: float = 0.0,
        sequence: str = "rows",
        gap: str | None = None,
        visits: int = 1,
        task: str = "abnormal",
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        seed: int = 0,
        **learning: Any,
    ) -> None:
        super().__init__(**learning)
        self.backbone = backbone
        if sequence not in SEQUENCES:
            raise InputError(f"model.sequence={sequence}: one of {', '.join(SEQUENCES)} is needed")
        if gap is not None and (gap not in GAPS or sequence != "visits"):
            raise InputError(f"model.gap={gap}: null, or with model.sequence=visits one of {', '.join(GAPS)} is needed")
        self.sequence, self.gap = sequence, gap
        self.visits = visits if sequence == "visits" else 1
        if task not in TASKS:
            raise InputError(f"task={task}: one of {', '.join(TASKS)} is needed")
        require_whole("model.hidden", hidden, 1)
        self.hidden, self.dropout = hidden, dropout
        self.labels = TASKS[task]
        self.outputs = 2 if task == "abnormal" else len(self.labels)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"model.label_smoothing={label_smoothing}: a share from 0 to below 1 is needed")
        self.label_smoothing, self.seed = label_smoothing, seed
        if class_weights is not None and task != "abnormal":
            raise InputError(f"model.class_weights={class_weights}: only task=abnormal weighs classes")
        self.balanced = class_weights == "balanced"
        self.register_buffer("class_weights", torch.ones(2))  # in the checkpoint: who only predicts counts none
        if class_weights is not None and not self.balanced:
            self.class_weights = _two_weights(class_weights)
        self.train_loss = MeanMetric(nan_strategy="disable")  # looking for NaN would wait for the GPU at each step
        self.predictions: dict[str, Tensor] = {}
        self._outputs: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Count balanced class weights on the training part."""
        if self.balanced:
            data = self.trainer.datamodule
            share = data.manifest["abnormal"].iloc[data.rows("train")].mean()
            self.class_weights = torch.tensor([0.5 / (1 - share), 0.5 / share], device=self.device)

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """The loss of one batch; of several processes' batches together, once their gradients are averaged.

        Raises:
            InputError: the batch is a single image, and at some batch norm a single pixel.
        """
        try:
            logits = self.logits(batch)
        except ValueError as error:
            if len(batch["image"]) > 1:
                raise
            raise InputError(
                f"a batch of a single image: batch norm has a single value to average over ({error}); raise "
                "data.batch_size, or data.image_size"
            ) from error
        loss = self._loss(logits, batch["target"], self._mean_of_processes, self.label_smoothing)
        self.train_loss.update(loss.detach(), len(batch["target"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """The logits of one batch, kept: metrics are computed once, over the whole part."""
        logits = self.logits(batch).float()
        self._outputs.append((batch["row"], batch["target"], logits))
        return logits

    test_step = predict_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Loss and metrics of the validation part; in training, the learning rate may follow the loss."""
        loss = self._evaluate("val")
        if self.trainer.state.fn == "fit":
            self.follow(loss)

    def on_test_epoch_end(self) -> None:
        """Loss and metrics of the test part."""
        self._evaluate("test")

    def on_predict_epoch_end(self) -> None:
        """Predictions alone: nothing is measured, and no logger takes them for the test part's."""
        self._gather()

    def on_train_epoch_end(self) -> None:
        """Log the training loss of the epoch."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()

    def logits(self, batch: dict[str, Tensor]) -> Tensor:
        """The logits (N, O) of a batch."""
        return self(batch["image"], batch["length"], batch["when"], batch["case"])

    def log_odds(self, logits: Tensor) -> Tensor:
        """(N, O) -> (N, L): of two classes, abnormal's against normal's."""
        return (logits[:, 1] - logits[:, 0])[:, None] if len(self.labels) == 1 else logits

    def fully_connected(self, features: int) -> nn.Sequential:
        """What every model ends in, and the study calls its fully connected layers: (N, features) -> (N, O)."""
        return nn.Sequential(
            nn.Dropout(self.dropout),
            nn.Linear(features, self.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, self.outputs),
        )

    def classify(self, features: Tensor) -> Tensor:
        """The head's logits (N, O) in fp32, whatever precision the features come in.

        bf16 has 8 significant bits: similar images would get the very same logit, and ties cost AUROC.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float())

    def _loss(
        self,
        logits: Tensor,
        target: Tensor,
        shared: Callable[[Tensor], Tensor] = lambda weight: weight,
        smoothing: float = 0.0,
    ) -> Tensor:
        """Cross-entropy in fp32, the mean over the labels that are known: the one place that masks the others.

        `logits` (N, O); `target` (N,) or (N, L), NaN where unknown. What the labels weigh is `shared` among processes:
        one may know more of them than another.
        """
        known = ~target.isnan()
        if target.ndim == 1:
            classes = target.nan_to_num(0).long()
            weight = self.class_weights[classes] * known
            losses = F.cross_entropy(logits.float(), classes, reduction="none", label_smoothing=smoothing)
        else:
            weight = known.float()
            share = target.nan_to_num(0) * (1 - smoothing) + smoothing / 2
            losses = F.binary_cross_entropy_with_logits(logits.float(), share, reduction="none")
        return (losses * weight).sum() / shared(weight.sum()).clamp_min(torch.finfo(torch.float32).tiny)

    def _mean_of_processes(self, weight: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(weight, reduce_op="mean") if self.trainer.world_size > 1 else weight

    def _evaluate(self, part: str) -> Tensor:
        """Log the loss and the metrics of all cases, over findings the plain mean of those in which one is defined.

        Returns:
            The loss.
        """
        target, logits = self._gather()
        loss = self._loss(logits, target)
        self.log(f"{part}/loss", loss)
        columns = zip(target.reshape(len(target), -1).T, self.log_odds(logits).T, strict=True)
        by_label = [measure(*column) for column in columns]
        means = {name: torch.stack([values[name] for values in by_label]).nanmean() for name in by_label[0]}
        self.log_dict({f"{part}/{name}": mean for name, mean in means.items()})
        return loss

    def _gather(self) -> tuple[Tensor, Tensor]:
        """Every case's target and logits (N, O), by `row`; `predictions` are of the same cases."""
        row, target, logits = (torch.cat(tensors) for tensors in zip(*self._outputs, strict=True))
        self._outputs.clear()
        if self.trainer.world_size > 1:
            row, target, logits = (self.all_gather(tensor).flatten(0, 1) for tensor in (row, target, logits))
        # Ranks see some cases twice so that all make the same number of steps: count each once.
        order = row.argsort(stable=True)
        once = order[row[order].diff(prepend=row.new_tensor([-1])) != 0]
        row, target, logits = row[once], target[once], logits[once]
        self.predictions = {"row": row.cpu(), "logit": self.log_odds(logits).cpu()}
        return target, logits


def _two_weights(weights: Sequence[float] | str) -> Tensor:
    if isinstance(weights, str) or len(weights) != 2 or min(weights) <= 0:
        raise InputError(f"model.class_weights={weights}: null, balanced or two positive numbers are needed")
    return torch.tensor(list(weights), dtype=torch.float32)
