"""What a broker has to be told, so that a device speaks for itself alone, and a board that is none yet only asks.

`rights` says who may do what, `mosquitto`, `nats` and `emqx` say it in each broker's words, all of them pure; `folder`
writes the files.
"""
