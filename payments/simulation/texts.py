"""What customers write: short texts in a few languages, put together from a topic, a mood and a number."""

SENTIMENTS = ("positive", "neutral", "negative")
TOPICS = ("delivery", "quality", "price", "payment", "support", "account")
# The language of a feedback by the language of the customer's country; others write English.
LANGUAGES = {"en": "en", "de": "de", "fr": "fr", "es": "es"}

_SUBJECTS = {
    "en": ("the delivery", "the quality", "the price", "paying", "the support team", "my account"),
    "de": ("die Lieferung", "die Qualität", "der Preis", "das Bezahlen", "der Kundendienst", "mein Konto"),
    "fr": ("la livraison", "la qualité", "le prix", "le paiement", "le service client", "mon compte"),
    "es": ("la entrega", "la calidad", "el precio", "el pago", "la atención", "mi cuenta"),
}
_VERDICTS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {
        "positive": ("All good: {}.", "Very happy with one thing above all: {}.", "Five stars for this: {}."),
        "neutral": ("It was fine, also this: {}.", "Nothing special to say about this: {}.", "As expected: {}."),
        "negative": ("This must get better: {}.", "Disappointed by one thing: {}.", "Never again because of this: {}."),
    },
    "de": {
        "positive": ("Alles bestens: {}.", "Sehr zufrieden, vor allem: {}."),
        "neutral": ("In Ordnung: {}.", "Wie erwartet: {}."),
        "negative": ("Das muss besser werden: {}.", "Leider enttäuschend: {}."),
    },
    "fr": {
        "positive": ("Tout va bien : {}.", "Très content, surtout : {}."),
        "neutral": ("Correct : {}.", "Comme prévu : {}."),
        "negative": ("À améliorer : {}.", "Déçu par une chose : {}."),
    },
    "es": {
        "positive": ("Todo bien: {}.", "Muy contento, sobre todo: {}."),
        "neutral": ("Correcto: {}.", "Como esperaba: {}."),
        "negative": ("Hay que mejorar esto: {}.", "Decepción por una cosa: {}."),
    },
}


_REPLIES = {
    "en": ("Thank you, we are looking into it.", "We are sorry and will make it right.", "This is solved now."),
    "de": ("Danke, wir sehen uns das an.", "Es tut uns leid, wir kümmern uns darum.", "Das ist jetzt gelöst."),
    "fr": ("Merci, nous regardons cela.", "Nous sommes désolés et nous en occupons.", "C'est résolu maintenant."),
    "es": ("Gracias, lo estamos mirando.", "Lo sentimos y lo arreglaremos.", "Ya está resuelto."),
}


def feedback_text(language: str, topic: str, sentiment: str, number: int) -> str:
    """Return a text of this topic and mood; equal numbers give equal texts. It holds no digits."""
    verdicts = _VERDICTS[language][sentiment]
    return verdicts[number % len(verdicts)].format(_SUBJECTS[language][TOPICS.index(topic)])


def reply_text(language: str, number: int) -> str:
    """Return what the support team answers; equal numbers give equal texts. It holds no digits."""
    replies = _REPLIES[language]
    return replies[number % len(replies)]
