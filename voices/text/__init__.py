"""What is spoken of a text. `reading` is the way in: it takes the markup off (`markup`, `markdown`), makes characters
plain (`characters`), cuts the text into sentences of one language each (`sentences`, `pieces`, `spans`, `languages`,
`identify`) and has each written out in words (`words`). Imports no Django.
"""
