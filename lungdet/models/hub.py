"""The hub that timm's pretrained weights come from."""

from lungdet.errors import InputError


def require_hub(name: str) -> None:
    """Ask for the weights' file once, without the minute of retries that timm would make.

    Raises:
        InputError: what to do instead.
    """
    import timm
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise InputError(f"model.backbone.name={name}: timm has no pretrained weights for it; set pretrained=false")
    repository, _, revision = config.hf_hub_id.partition("@")
    files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files):
        return
    instead = (
        "download them elsewhere and give the file as model.backbone.weights=FILE, or set "
        "model.backbone.pretrained=false"
    )
    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file, revision=revision or None), timeout=5)
            return
        except Exception as error:
            lacking = isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404)
            if not lacking:  # the hub itself is in trouble
                raise InputError(
                    f"model.backbone.pretrained=true: the weights of {name} ({config.hf_hub_id}) are not in the local "
                    f"cache and the hub cannot be reached ({type(error).__name__}); connect to it, or {instead}"
                ) from error
    raise InputError(
        f"model.backbone.pretrained=true: the hub was reached, but gives no {' or '.join(files)} of {config.hf_hub_id} "
        f"for {name}; {instead}"
    )
