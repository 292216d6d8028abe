"""Train a small network with Lightning to recognise handwritten digits, and track all of it.

Install what it needs, and tell it where the platform is and who you are::

    pip install 'mantik[lightning,sklearn]'
    export MLFLOW_TRACKING_URI=https://test.cloud.mantik.ai
    export MANTIK_USERNAME=...
    export MANTIK_PASSWORD=...

    python examples/lightning_digits.py
"""

import matplotlib as mpl

mpl.use("Agg")  # draw into files, also where there is no screen

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from sklearn.datasets import load_digits
from sklearn.metrics import ConfusionMatrixDisplay
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import mantik


class DigitClassifier(pl.LightningModule):
    """A convolutional network for images of 8 x 8 pixels."""

    def __init__(self, channels: int = 16, dropout: float = 0.2, learning_rate: float = 0.02) -> None:
        super().__init__()
        self.save_hyperparameters()  # the logger records them as params
        self.learning_rate = learning_rate
        self.example_input_array = torch.zeros(1, 1, 8, 8)  # for the sizes in model_summary.txt
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8 * channels, 10),
        )
        self.evaluated: list[tuple[torch.Tensor, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return ten scores for each image."""
        return self.layers(images)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        """Log the loss."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor]) -> None:
        """Log loss and accuracy on images that are not trained on."""
        self.evaluate(batch, "val")

    def test_step(self, batch: list[torch.Tensor]) -> None:
        """Log the same on images that nothing was chosen by."""
        self.evaluate(batch, "test")

    def evaluate(self, batch: list[torch.Tensor], stage: str) -> None:
        """Log loss and accuracy, and keep what was predicted for the end of the epoch."""
        images, labels = batch
        scores = self(images)
        self.log(f"{stage}/loss", nn.functional.cross_entropy(scores, labels))
        self.log(f"{stage}/accuracy", (scores.argmax(1) == labels).float().mean())
        confidence, guesses = scores.softmax(1).max(1)
        self.evaluated.append((images, labels, guesses, confidence))

    def on_validation_epoch_end(self) -> None:
        """Show the four mistakes that the network is surest of. The browser has a slider for the epochs."""
        images, labels, guesses, confidence = self.take_evaluated()
        if self.trainer.sanity_checking:
            return
        wrong = (labels != guesses).nonzero().flatten()
        wrong = wrong[confidence[wrong].argsort(descending=True)][:4]
        captions = [f"a {labels[one]}, taken for a {guesses[one]}" for one in wrong]
        self.logger.log_image("val/mistakes", list(images[wrong]), step=self.current_epoch, caption=captions)

    def on_test_epoch_end(self) -> None:
        """Show all digits in a figure, and in a table those that the network is least sure of."""
        images, labels, guesses, confidence = self.take_evaluated()
        rows = [
            [images[one], labels[one].item(), guesses[one].item(), round(confidence[one].item(), 3)]
            for one in confidence.argsort()[:20]
        ]
        self.logger.log_table("test/least_sure", columns=["image", "digit", "guess", "confidence"], data=rows)
        matrix = ConfusionMatrixDisplay.from_predictions(labels, guesses, cmap="Blues", colorbar=False)
        self.logger.log_figure("test/confusion_matrix", matrix.figure_)
        plt.close(matrix.figure_)

    def take_evaluated(self) -> list[torch.Tensor]:
        """Return images, labels, guesses and confidences of the epoch, and begin with none again."""
        taken = [torch.cat(parts) for parts in zip(*self.evaluated, strict=True)]
        self.evaluated.clear()
        return taken

    def configure_optimizers(self) -> dict[str, object]:
        """Warm up, then slow down."""
        optimizer = torch.optim.AdamW(self.parameters())
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def load_data() -> list[DataLoader[tuple[torch.Tensor, ...]]]:
    """Return the digits in batches, for training, validation and test."""
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    parts = random_split(TensorDataset(images, torch.tensor(digits.target)), [0.6, 0.2, 0.2])
    return [DataLoader(part, batch_size=64, shuffle=part is parts[0]) for part in parts]


def main() -> str:
    """Train, test, and return the id of the run."""
    pl.seed_everything(0, verbose=False)
    train_data, validation_data, test_data = load_data()

    # Nothing is sent and nobody logs in before the training begins.
    logger = mantik.MantikLogger(
        experiment_name="lightning-digits",
        run_name="small-cnn",
        tags={"data": "sklearn.datasets.load_digits"},
        description="A network of two convolutions for handwritten digits of 8 x 8 pixels.",
        log_model=True,  # upload the checkpoints that ModelCheckpoint keeps
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=15,
        log_every_n_steps=5,
        enable_progress_bar=False,
        logger=logger,
        callbacks=[
            ModelCheckpoint(monitor="val/loss", save_top_k=2, save_last=True, filename="{epoch:02d}"),
            EarlyStopping(monitor="val/loss", patience=4),
            LearningRateMonitor(logging_interval="step"),
        ],
    )
    model = DigitClassifier()
    trainer.fit(model, train_data, validation_data)
    trainer.test(model, test_data, ckpt_path="best")
    return logger.run_id


if __name__ == "__main__":
    main()
