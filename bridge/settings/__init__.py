"""Every `FLEET_*` variable of every program, as groups of fields that programs compose.

    group          a group of settings, read from a mapping; validation errors by variable
    values         the types of settings that are URLs, files and ports
    groups         what several programs read: logs, database, writer, accepted window, batches
    bridge, mqtt, keeper, api, simulator, provisioning, local, development
                   what one program reads
    programs       which program reads which groups; docs/settings.md and the known names are derived from it
    names          the names of all settings, and the nearest one to a misspelled name

A program reads only the groups that it composes, so an invalid value of another setting does not stop it.
"""
