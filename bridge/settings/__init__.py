"""Every `FLEET_*` variable of every program, as groups of fields that programs compose.

    group          a group of settings, read from a mapping; what is wrong with it, by variable
    values         the types of settings that are URLs, files and ports
    groups         what several programs read: logs, database, writer, accepted window, batches
    bridge, mqtt, api, simulator, provisioning, local, development
                   what one program reads
    programs       which program reads which groups: the page docs/settings.md and the known names follow from it
    names          variables that were renamed, and variables that nobody reads

A program reads the groups that it composes and no others, so a wrong value elsewhere does not stop it.
"""
