//! A simulated ward and replay of recordings, over MQTT and CoAP
