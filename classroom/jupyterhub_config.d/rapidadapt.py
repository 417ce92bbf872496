"""JupyterHub's settings for a class. For The Littlest JupyterHub, copy this file to

    /opt/tljh/config/jupyterhub_config.d/

and run `sudo tljh-config reload`. Another JupyterHub can load it too: `load_subconfig("rapidadapt.py")`.
"""

c = get_config()  # noqa: F821

# What a learner's notebooks may take together. A lesson sees the limit and takes smaller batches where it is short.
c.SystemdSpawner.mem_limit = "2G"  # TLJH; `tljh-config set limits.memory` would be overruled by this
c.Spawner.mem_limit = "2G"
c.SystemdSpawner.cpu_limit = 2.0
c.Spawner.cpu_limit = 2.0

c.Spawner.environment.update(
    {
        "RAPIDADAPT_CACHE": "/opt/rapidadapt/cache",  # the model, once for all; classroom/install.sh puts it there
        "OMP_NUM_THREADS": "2",  # or each kernel would start a thread for every core of the machine
        "MKL_NUM_THREADS": "2",
    }
)

# The lesson to begin with, in the copy that a new user's home gets.
c.Spawner.default_url = "/lab/tree/rapid-adaptation/notebooks/00_start_here.ipynb"

# Thirty learners arrive in the same minute: start eight servers at a time and let the others wait.
c.JupyterHub.concurrent_spawn_limit = 8
c.Spawner.start_timeout = 120
