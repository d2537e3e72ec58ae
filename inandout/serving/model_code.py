"""Model code that MLflow stores and executes to load the model ("models from code"), which avoids pickles."""

from mlflow.models import set_model

from inandout.serving.servable import Servable

set_model(Servable())
