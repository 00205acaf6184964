"""Commands on the webhook inbox."""

from typing import Annotated

import typer

from payments.cli.printing import console

app = typer.Typer()
inbox_app = typer.Typer(help="Take signed webhooks of other systems.", no_args_is_help=True)
app.add_typer(inbox_app, name="inbox")


@inbox_app.command("serve")
def inbox_serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 is any free one.")] = 8090,
) -> None:
    """Take webhooks at /webhooks/stripe until the process is told to end."""
    from ingestion.inbox.secrets import secret_file
    from ingestion.inbox.server import serve
    from payments.settings import settings

    def ready(address: str) -> None:
        given = settings().webhook_secrets is not None
        secret = "PAYMENTS_WEBHOOK_SECRETS" if given else secret_file()
        console.print(f"Webhooks are taken at {address}; the secret is in {secret}", soft_wrap=True, highlight=False)

    serve(host, port, ready)
