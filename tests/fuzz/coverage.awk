# coverage.awk - lines covered, parser by parser. Reads lcov's text (llvm-cov export -format=lcov), then the headers as they were compiled.
# A line that did not run is counted out when it is nothing but what a failing malloc or system call leads to: see `excused`.

function parser(name, pattern) { parsers[++num] = name; patterns[num] = "^(" pattern ")$" }

BEGIN {
    parser("json", "hlsnap__json_.*")
    parser("oci-layout", "hlsnap__oci_(marker_read|read_json|slurp|open|open_as|openat|os)")
    parser("index", "hlsnap__oci_(entries_read|ref_read|ref_usable|media_type_ok|digest_ok|annotations_check|schema_check|index_find|not_found|tag_of|has_tag|tag_ok|digest_of|index_read|exists)|hlsnap__sha256_text_ok")
    parser("index, written again", "hlsnap__oci_(entry_fate|entries_write|index_write|index_make)|hlsnap__text_(without|raw|add|start)")
    parser("manifest", "hlsnap__oci_(layers_read|manifest_read|chunks_size|json_blob|small_blob|open_blob|resolve)")
    parser("config", "hlsnap__oci_(config_gate|name_read|machine_name|machine_read|guest_read|region_read|layout_read|refuse|decls_read|features_read|extents_read|layers_match|config_read)|hlsnap__(layout_check|guest_check|extents_check|decls_unique|decl_parse|decl_find|name_ok|signature_parse|type_parse)")
    parser("config: maps", "hlsnap__oci_(choice_read|map_read|maps_read)|hlsnap__(map_check|maps_check|map_find|map_at|stored_to|extent_own|map_layer|snapshot_maps|sha256_ok)")
    parser("maps at a start", "hlsnap__(maps_accept|map_differs|maps_clash|maps_plan_make|maps_placed|maps_place|mapped_place|mapped_fill)")
    parser("chunk lists", "hlsnap__oci_(layers_open|work_make|mark_used|verify|copy|compare|batch|work_run|work_all|layer_make|layer_load|load_once|load_run)")
    parser("whole directory", "hlsnap__oci_(reach_.*|entry_manifest|entry_look|manifest_bytes|kind_of|browse|list_run|find_manifest|info_run|info_fill|list_info_run|shares_.*|annotations_run|layers_run|gc_.*|old|remove_old|leftovers|blob_file|temp_file|retag.*|fsck.*|problem|dir_next|dir_open|store_check|open_dirs)")
    parser("ELF", "hlsnap__elf_.*|hlsnap__region_add|hlsnap__image_(map|store)|hlsnap__load_image")
    parser("guest boot table", "hlsnap__(contract_read|guest_init|guest_copy|bind_imports)")
    parser("guest's messages", "hlsnap__(mailbox_copy|host_call|import_call|guest_log|guest_abort|results_read|results_decode|export_failed|args_check|message_read|value_read|enter|buffer_room|guest_map)")
    parser("Linux personality", "hlsnap__lx_.*")
    parser("host's messages", "hlsnap__rt_(calls|response|request|start)|hlsnap_rt_(call|abort|map)")
    # what only a self guest's loading reaches: its file is the program's own
    self = "^hlsnap__elf_(behind|libc_copy|irelative|host_to_guest|unresolved|relocate_static)$"
}

function excused(text) {
    return text ~ /HLSNAP_ERR_MEMORY|out of memory|HLSNAP_ERR_OS\>|errno, "(stat|lock|mkdir|read|unlink|dup|resize|a directory)/
}

FILENAME ~ /lcov$/ {
    if (/^SF:/) { file = $0; sub(/^SF:.*\//, "", file) }
    else if (/^FN:/) { split(substr($0, 4), part, ","); name = part[2]; sub(/^.*:/, "", name); starts[file, part[1]] = name }
    else if (/^DA:/) { split(substr($0, 4), part, ","); count[file, part[1]] = part[2] }
    next
}

FNR == 1 { file = FILENAME; sub(/.*\//, "", file); inside = "" }
(file, FNR) in starts { inside = starts[file, FNR]; if (inside ~ self) inside = "" }
inside != "" && (file, FNR) in count {
    for (i = 1; i <= num; i++) {
        if (inside !~ patterns[i]) continue
        if (count[file, FNR] == 0 && excused($0)) { out[i]++; continue }
        all[i]++
        if (count[file, FNR] > 0) hit[i]++
        else if (missing) print "# " parsers[i] ": " file ":" FNR ": " $0
    }
}
/^}/ || (/}$/ && (file, FNR) in starts && /{/) { inside = "" }

END {
    for (i = 1; i <= num; i++) {
        percent = all[i] ? 100 * hit[i] / all[i] : 0
        printf "# %-22s %5.1f %% of %4d lines, %d counted out\n", parsers[i], percent, all[i], out[i]
        if (percent < 90) low = low " " parsers[i]
    }
    if (low != "") { print "# below 90 %:" low; exit 1 }
}
