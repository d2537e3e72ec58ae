"""The file that MLflow keeps in a model and runs to load it ("models from code"), so that nothing is pickled."""

from mlflow.models import set_model

from inandout.serving.servable import Servable

set_model(Servable())
