"""What the lists of jobs have in common."""

from __future__ import annotations

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.request import Request

from voiceproject.jobs.status import JobStatus
from voiceproject.web.api import CursorPages, QueryTimeField, StrictSerializer


class JobFilters(StrictSerializer):
    """Filters of a list of jobs, from the query string."""

    status = serializers.ChoiceField(JobStatus.choices, required=False)
    created_after = QueryTimeField()
    created_before = QueryTimeField()
    voice_id = serializers.UUIDField(required=False, help_text="Those made with this saved voice")
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
        return queryset.filter(**{lookups[name]: given[name] for name in lookups if name in given})
