"""What the engine calls its versions and its weights, and the two bytes that its files begin with."""

PRETRAINED = "GPT_SoVITS/pretrained_models"
VERSIONS = ("v1", "v2", "v3", "v4", "v2Pro", "v2ProPlus")
GPT = {"v1": "s1bert25hz-2kh-longer-epoch=68e-step=50232.ckpt"}
GPT["v2"] = "gsv-v2final-pretrained/s1bert25hz-5kh-longer-epoch=12-step=369668.ckpt"
SOVITS = {
    "v1": "s2G488k.pth",
    "v2": "gsv-v2final-pretrained/s2G2333k.pth",
    "v3": "s2Gv3.pth",
    "v4": "gsv-v4-pretrained/s2Gv4.pth",
    "v2Pro": "v2Pro/s2Gv2Pro.pth",
    "v2ProPlus": "v2Pro/s2Gv2ProPlus.pth",
}
HEADS = {"v1": b"00", "v2": b"01", "v3": b"02", "v4": b"04", "v2Pro": b"05", "v2ProPlus": b"06"}
