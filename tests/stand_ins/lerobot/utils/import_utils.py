"""As lerobot.utils.import_utils."""


def register_third_party_plugins():
    """Imports installed packages called lerobot_robot_*; there are none."""
