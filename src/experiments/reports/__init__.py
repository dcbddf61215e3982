"""From the records of finished runs to tables, pages and figures. Nothing here measures or embeds anything."""
