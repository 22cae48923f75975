"""What the lists of jobs have in common."""

from __future__ import annotations

import functools
import operator
from typing import Any

from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now
from rest_framework import serializers
from rest_framework.request import Request

from voiceproject.jobs.job import Job
from voiceproject.jobs.status import JobStatus
from voiceproject.web.api import CursorPages, QueryTimeField, StrictSerializer, TextField
from voiceproject.web.names import MAX_TITLE, tidy


class JobFilters(StrictSerializer):
    """Filters of a list of jobs, from the query string."""

    status = serializers.ChoiceField(JobStatus.choices, required=False)
    created_after = QueryTimeField()
    created_before = QueryTimeField()
    voice_id = serializers.UUIDField(required=False, help_text="Those made with this saved voice")
    q = TextField(required=False, max_length=200, help_text="Those with these words in their title, or their text")
    cursor = serializers.CharField(required=False)
    page_size = serializers.IntegerField(required=False, min_value=1, max_value=CursorPages.max_page_size)

    @classmethod
    def apply(cls, queryset: QuerySet, request: Request) -> QuerySet:
        filters = cls(data=request.query_params)
        filters.is_valid(raise_exception=True)
        given = filters.validated_data
        lookups = {"status": "status", "created_after": "created_at__gt", "created_before": "created_at__lt"}
        if "voice_id" in given:
            queryset = queryset.filter(queryset.model.made_with([given["voice_id"]]))
        for word in given.get("q", "").split():
            # Only one tenant's rows are looked at.
            found = (Q(**{f"{field}__icontains": word}) for field in queryset.model.searched_fields)
            queryset = queryset.filter(functools.reduce(operator.or_, found))
        return queryset.filter(**{lookups[name]: given[name] for name in lookups if name in given})


class RenameSerializer(StrictSerializer):
    """What of a job can be changed afterwards."""

    title = TextField(max_length=MAX_TITLE, help_text="What people call it. Its downloads are named so.")

    def validate_title(self, title: str) -> str:
        title = tidy(title)
        if not title:
            raise serializers.ValidationError("There is nothing to be seen in this title.")
        return title


def rename(job: Job, data: Any) -> None:
    """Gives a job another title, whatever its status; who watches it is told. Raises ValidationError."""
    serializer = RenameSerializer(data=data)
    serializer.is_valid(raise_exception=True)
    named = {"title": serializer.validated_data["title"], "updated_at": Now(), "revision": F("revision") + 1}
    type(job)._default_manager.filter(pk=job.pk).update(**named)
    job.refresh_from_db()
