import click
@click.command()
def dockerfile(): pass
