"""The HTTP skin: parse, ask ``FileManagerAPI``, answer. Nothing here touches a file."""
